// SPDX-License-Identifier: GPL-2.0-or-later
// Which networks are the house's, and the owner's word on those that were misjudged.

import { live } from '/api.js';
import { ask, h, say, tell } from '/element.js';

const LISTS = { protect: 'protected_networks', internet: 'internet_networks' };
const CHOICES = { found: 'As found', protect: 'Protect it', internet: 'Treat as the internet' };
const KINDS = { 'protected': [ 'protected', 'good' ], 'internet': [ 'the internet', 'lost' ], 'other': [ 'not protected', 'held' ], 'missing': [ 'there is no such network', 'bad' ] };

export function networksCard(set) {
	let settings = null, kinds = new Map(), rows = new Map();
	const list = h('ul', { 'class': 'rows' }, h('li', { 'class': 'quiet' }, 'Reading …'));
	const element = h('section', { 'class': 'card stack' }, h('h2', null, 'Networks'),
		h('p', { 'class': 'hint' }, 'What is protected leaves the house through the tunnel, or not at all. What is the internet may not come in. Portcullis finds out by itself which is which: change it only where it is wrong, such as for a WireGuard server of your own that your phones use on the road.'), list);

	const chosen = (name) => Object.keys(LISTS).find((choice) => settings[LISTS[choice]].includes(name)) ?? 'found';

	async function choose(name, kind, wanted) {
		if (wanted === 'internet' && kind === 'protected') {
			const sure = await ask(`Treat ${name} as the internet?`, 'While the kill switch is active its devices reach neither the internet nor this router, so not this page either.', 'Treat as the internet', { kind: 'danger' });
			if (!sure)
				return;
		}
		for (const [ choice, option ] of Object.entries(LISTS)) {
			const others = settings[option].filter((other) => other !== name);
			const names = choice === wanted ? [ ...others, name ] : others;
			if (names.join() !== settings[option].join())
				settings = await set(option, names.join(' '));
		}
	}

	// Rows stay as long as the networks do: a select that is open must not be replaced.
	function row(name) {
		const tag = h('span'), device = h('span', { 'class': 'small quiet' });
		const select = h('select', { 'aria-label': `How ${name} is treated`, 'onchange': async() => {
			select.disabled = true;
			try {
				await choose(name, kinds.get(name).kind, select.value);
			} catch (problem) {
				tell(problem.message, 'bad');
			} finally {
				select.disabled = false;
				select.value = chosen(name);
			}
		} }, Object.entries(CHOICES).map(([ value, text ]) => h('option', { value, selected: value === chosen(name) }, text)));
		list.append(h('li', null, h('div', { 'class': 'grow' }, h('strong', null, name, ' ', tag), device), h('div', { 'class': 'choice' }, select)));
		return { tag, device };
	}

	function draw() {
		if (!settings || !live.status)
			return;
		const named = Object.values(LISTS).flatMap((option) => settings[option]);
		kinds = new Map(named.map((name) => [ name, { device: '', kind: 'missing' } ]));
		for (const { name, device, kind } of live.status.interfaces)
			kinds.set(name, { device, kind });
		if ([ ...kinds.keys() ].join() !== [ ...rows.keys() ].join()) {
			list.replaceChildren();
			rows = new Map([ ...kinds.keys() ].map((name) => [ name, row(name) ]));
			if (!rows.size)
				list.append(h('li', { 'class': 'quiet' }, 'The router has not said yet which networks it has.'));
		}
		for (const [ name, { tag, device } ] of rows) {
			const [ word, tone ] = KINDS[kinds.get(name).kind];
			tag.className = `tag tone-${tone}`;
			say(tag, word);
			say(device, kinds.get(name).device);
		}
	}

	live.listeners.add(draw);
	return { element, update: (found) => { settings = found; draw(); }, stop: () => live.listeners.delete(draw) };
}
