// SPDX-License-Identifier: GPL-2.0-or-later
// Mode, order of locations, DNS, profiles, diagnostics.

import { change, live, read } from '/api.js';
import { button, h, say, tell } from '/element.js';
import { profilesCard } from '/profiles.js';
import { NAMES, clock } from '/wording.js';

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
	let order = [], known = [];
	const list = h('ol', { 'class': 'rows' });
	const select = h('select', { 'aria-label': 'Location to add' });
	const add = button('Add', '', () => save([ ...order, select.value ]));
	const adding = h('div', { 'class': 'split' }, h('div', { 'class': 'field grow' }, select), add);
	const element = h('section', { 'class': 'card stack' }, h('h2', null, 'Fallback locations'),
		h('p', { 'class': 'hint' }, 'Where the chosen location cannot be reached, these are tried in this order. Nothing passes meanwhile.'), list, adding);

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
				known.length && !known.some((profile) => profile.name === name) ? h('span', { 'class': 'tag tone-bad' }, 'there is no such profile') : null),
			h('div', { 'class': 'acts' },
				button('Up', 'plain slim', () => save(moved(order.indexOf(name), order.indexOf(name) - 1)), { 'aria-label': `Move ${name} up`, 'disabled': at === 0 }),
				button('Down', 'plain slim', () => save(moved(order.indexOf(name), order.indexOf(name) + 1)), { 'aria-label': `Move ${name} down`, 'disabled': at === order.length - 1 }),
				button('Remove', 'plain slim', () => save(order.filter((other) => other !== name)), { 'aria-label': `Remove ${name}` })))));
		if (!order.length)
			list.append(h('li', { 'class': 'quiet' }, 'None. If the location fails, it alone is tried again and again.'));
		const rest = known.filter(({ name, usable }) => usable && !order.includes(name));
		select.replaceChildren(...rest.map(({ name }) => h('option', { value: name }, name)));
		adding.hidden = !rest.length;
	}
	return { element, update: (found) => { order = found.profiles; draw(); }, profiles: (found) => { known = found; draw(); } };
}

function dnsCard() {
	const input = h('input', { id: 'dns', autocapitalize: 'off', spellcheck: 'false', placeholder: 'the profile’s own', disabled: true });
	const problem = h('p', { 'class': 'say tone-bad', 'role': 'alert', 'hidden': true });
	const form = h('form', { 'class': 'stack', 'onsubmit': async(event) => {
		event.preventDefault();
		problem.hidden = true;
		try {
			update(await set('dns', input.value));
		} catch (error) {
			problem.hidden = error.status === 401;
			say(problem, error.message);
			input.focus();
		}
	} }, h('div', { 'class': 'field' }, h('label', { for: 'dns' }, 'DNS servers in the tunnel'), input,
		h('span', { 'class': 'hint' }, 'IP addresses, separated by blanks. Empty: what the profile says. A change connects anew.')), problem,
	h('div', null, h('button', null, 'Save')));
	function update({ dns }) {
		input.value = dns.join(' ');
		input.disabled = false;
	}
	return { element: h('section', { 'class': 'card' }, h('h2', null, 'DNS'), form), update };
}

function diagnosticsCard() {
	const list = h('tbody'), empty = h('p', { 'class': 'quiet', 'hidden': true }, 'Nothing has happened since Portcullis started.');
	const version = h('span', { 'class': 'small quiet' }, live.status ? `Version ${live.status.version}` : '');
	read('events').then(({ events }) => {
		empty.hidden = events.length > 0;
		list.append(...events.slice(0, 30).map((event) => h('tr', null, h('td', { 'class': 'number' }, clock(event.time, live.offset)),
			h('td', null, NAMES[event.state] ?? event.state, h('div', { 'class': 'small quiet' }, event.reason)),
			h('td', null, event.kill_switch_active ? 'blocks' : 'does not block'))));
	}, (problem) => { empty.hidden = false; say(empty, problem.message); });
	return h('section', { 'class': 'card stack' }, h('div', { 'class': 'split' }, h('h2', null, 'Diagnostics'), version),
		h('p', { 'class': 'hint' }, 'The report has the state, settings, networks, devices and events of this router. Keys are removed. Look through it before you pass it on.'),
		h('div', null, h('a', { 'class': 'button', 'href': '/api/report', 'download': '' }, 'Download the report')),
		h('details', null, h('summary', null, 'What happened'), h('div', { 'class': 'scroll' }, h('table', { 'class': 'small' },
			h('thead', null, h('tr', null, [ 'When', 'State', 'Kill switch' ].map((text) => h('th', { scope: 'col' }, text)))), list)), empty));
}

export function settingsPage(main) {
	const mode = modeCard(), fallback = fallbackCard(), dns = dnsCard();
	main.append(h('h1', null, 'Settings'), mode.element, profilesCard(fallback.profiles), h('div', { 'class': 'pair' }, fallback.element, dns.element), diagnosticsCard());
	read('get').then((found) => {
		for (const card of [ mode, fallback, dns ])
			card.update(found);
	}, (problem) => tell(problem.message, 'bad'));
	return () => {};
}
