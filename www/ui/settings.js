// SPDX-License-Identifier: GPL-2.0-or-later
// Mode, order of locations, DNS; and the cards that are files of their own.

import { change, read } from '/api.js';
import { button, h, say, tell } from '/element.js';
import { diagnosticsCard } from '/diagnostics.js';
import { networksCard } from '/networks.js';
import { pick } from '/picker.js';
import { profilesCard } from '/profiles.js';

async function set(name, value) {
	const answer = await change('set', { name, value });
	tell(answer.warning || 'Saved.', answer.warning ? 'held' : 'good');
	return answer;
}

function modeCard() {
	const lever = h('button', { 'type': 'button', 'role': 'switch', 'aria-checked': 'false', 'aria-labelledby': 'all', 'aria-describedby': 'all-why', 'onclick': async() => {
		const wanted = lever.getAttribute('aria-checked') === 'true' ? 'standard' : 'at_all_times';
		lever.disabled = true;
		try {
			update(await set('mode', wanted));
		} catch (problem) {
			tell(problem.message, 'bad');
		} finally {
			lever.disabled = false;
		}
	} });
	const now = h('p', { 'class': 'hint' });
	const element = h('section', { 'class': 'card' }, h('h2', null, 'Kill switch mode'), h('div', { 'class': 'switch' }, lever, h('div', { 'class': 'stack' },
		h('p', { id: 'all' }, h('strong', null, 'Enable at all times')),
		h('p', { 'class': 'hint', 'id': 'all-why' }, 'Off (standard): it blocks from the moment you connect until you disconnect yourself, through crashes and restarts. On: it blocks while you are disconnected too, so nobody in the house has internet without the VPN.'), now)));

	function update({ mode }) {
		const all = mode === 'at_all_times';
		lever.setAttribute('aria-checked', String(all));
		say(now, all ? 'Now: to use the internet without the VPN, turn this off and disconnect.' : 'Now: to use the internet without the VPN, disconnect.');
	}
	return { element, update };
}

function fallbackCard() {
	let order = [], missing = [];
	const list = h('ol', { 'class': 'rows' });
	const add = button('Add a location', '', async() => {
		const name = await pick('Add a fallback location', (one) => order.includes(one) && 'in the list');
		if (name && !order.includes(name))
			await save([ ...order, name ]);
	});
	const element = h('section', { 'class': 'card stack' }, h('h2', null, 'Fallback locations'),
		h('p', { 'class': 'hint' }, 'Where the chosen location cannot be reached, these are tried in this order. Nothing passes meanwhile.'), list, h('div', null, add));

	async function save(wanted) {
		const answer = await set('profiles', wanted.join(' '));
		order = answer.profiles;
		draw();
	}

	function moved(from, to) {
		const wanted = [ ...order ];
		wanted.splice(to, 0, ...wanted.splice(from, 1));
		return wanted;
	}

	function draw() {
		list.replaceChildren(...order.map((name, at) => h('li', null,
			h('div', { 'class': 'grow' }, h('strong', null, `${at + 1}. ${name}`),
				missing.includes(name) ? h('span', { 'class': 'tag tone-bad' }, 'there is no such profile') : null),
			h('div', { 'class': 'acts' },
				button('Up', 'plain slim', () => save(moved(order.indexOf(name), order.indexOf(name) - 1)), { 'aria-label': `Move ${name} up`, 'disabled': at === 0 }),
				button('Down', 'plain slim', () => save(moved(order.indexOf(name), order.indexOf(name) + 1)), { 'aria-label': `Move ${name} down`, 'disabled': at === order.length - 1 }),
				button('Remove', 'plain slim', () => save(order.filter((other) => other !== name)), { 'aria-label': `Remove ${name}` })))));
		if (!order.length)
			list.append(h('li', { 'class': 'quiet' }, 'None. If the location fails, it alone is tried again and again.'));
	}
	return { element, update: (found) => { order = found.profiles; draw(); },
		profiles: (found) => { ({ missing } = found); add.hidden = !found.total; draw(); } };
}

// One line of addresses, saved by itself.
function addresses(option, label, hint, placeholder) {
	const input = h('input', { 'id': option, 'autocapitalize': 'off', 'spellcheck': 'false', placeholder, 'disabled': true, 'aria-describedby': `${option}-why` });
	const problem = h('p', { 'class': 'say tone-bad', 'role': 'alert', 'hidden': true });
	const form = h('form', { 'class': 'stack', 'onsubmit': async(event) => {
		event.preventDefault();
		problem.hidden = true;
		try {
			const typed = input.value, answer = await set(option, typed);
			if (input.value === typed) // nobody has typed on meanwhile
				update(answer);
		} catch (error) {
			problem.hidden = error.status === 401;
			say(problem, error.message);
			input.focus();
		}
	} }, h('div', { 'class': 'field' }, h('label', { for: option }, label), input, h('span', { 'class': 'hint', 'id': `${option}-why` }, hint)), problem,
	h('div', null, h('button', { 'aria-label': `Save: ${label}` }, 'Save')));
	function update(found) {
		input.value = found[option].join(' ');
		input.disabled = false;
	}
	return { form, update };
}

function dnsCard() {
	const inside = addresses('dns', 'DNS servers', 'IP addresses, separated by blanks: of servers in the tunnel, or of your own at home (Pi-hole). Empty: what the profile says. A change connects anew.', 'the profile’s own');
	const outside = addresses('bootstrap_dns', 'Who finds the VPN server', 'Where a profile names its server by a name, these DNS servers are asked for its address. No other DNS query goes outside the tunnel. Empty: Quad9 and Cloudflare.', '9.9.9.9 1.1.1.1');
	return { element: h('section', { 'class': 'card stack' }, h('h2', null, 'DNS'), inside.form, outside.form),
		update: (found) => { inside.update(found); outside.update(found); } };
}

export function settingsPage(main) {
	const mode = modeCard(), fallback = fallbackCard(), dns = dnsCard(), networks = networksCard(set), diagnostics = diagnosticsCard();
	const profiles = profilesCard(fallback.profiles);
	main.append(h('h1', null, 'Settings'), mode.element, profiles.element, h('div', { 'class': 'pair' }, fallback.element, dns.element), networks.element, diagnostics.element);
	read('get').then((found) => {
		for (const card of [ mode, fallback, dns, networks ])
			card.update(found);
	}, (problem) => tell(problem.message, 'bad'));
	return () => {
		for (const card of [ profiles, networks, diagnostics ])
			card.stop();
	};
}
