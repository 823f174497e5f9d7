// SPDX-License-Identifier: GPL-2.0-or-later
// Choosing a profile out of a few, or out of thousands.

import { read } from '/api.js';
import { h, say } from '/element.js';

const SHOWN = 80;

// Every word of the search has to be somewhere in the name or the server.
export function matches(profiles, search) {
	const words = search.toLowerCase().split(/\s+/).filter(Boolean);
	return profiles.filter(({ name, server = '' }) => {
		const text = `${name} ${server}`.toLowerCase();
		return words.every((word) => text.includes(word));
	});
}

// Resolves to the name of the profile chosen, or to null.
export function pick(current) {
	return new Promise((resolve) => {
		let profiles = [], chosen = null;
		const list = h('ul', { 'class': 'list' });
		const summary = h('p', { 'class': 'small quiet', 'role': 'status' }, 'Reading the profiles …');
		const search = h('input', { 'type': 'search', 'placeholder': 'Search by name or server', 'aria-label': 'Search profiles', 'autocomplete': 'off', 'autofocus': true,
			'oninput': () => draw(),
			'onkeydown': (event) => {
				if (event.key === 'ArrowDown' || event.key === 'Enter') {
					event.preventDefault();
					const first = list.querySelector('button:not([disabled])');
					if (event.key === 'Enter')
						first?.click();
					else
						first?.focus();
				}
			} });
		list.addEventListener('keydown', (event) => {
			const step = { ArrowDown: 'nextElementSibling', ArrowUp: 'previousElementSibling' }[event.key];
			if (!step)
				return;
			event.preventDefault();
			const next = event.target.closest('li')?.[step]?.querySelector('button');
			(next ?? (event.key === 'ArrowUp' ? search : null))?.focus();
		});
		const dialog = h('dialog', { 'aria-label': 'Choose a location', 'onclose': () => { dialog.remove(); resolve(chosen); } },
			h('div', null,
				h('div', { 'class': 'split' }, h('h2', null, 'Choose a location'),
					h('button', { 'type': 'button', 'class': 'plain slim', 'onclick': () => dialog.close() }, 'Cancel')),
				search, summary, list));

		function draw() {
			const found = matches(profiles, search.value);
			list.replaceChildren(...found.slice(0, SHOWN).map((profile) => h('li', null,
				h('button', { 'type': 'button', 'disabled': !profile.usable, 'aria-current': profile.name === current ? 'true' : null,
					'onclick': () => { chosen = profile.name; dialog.close(); } },
				h('span', null, profile.name, profile.name === current && h('span', { 'class': 'tag' }, 'in use')),
				h('span', { 'class': 'small quiet' }, profile.usable ? profile.server : 'cannot be used')))));
			if (!profiles.length)
				say(summary, 'There are no profiles yet. Import one on the page Settings.');
			else if (!found.length)
				say(summary, 'No profile has that in its name or server.');
			else
				say(summary, found.length > SHOWN ? `${found.length} profiles, the first ${SHOWN} shown: type more to narrow it down.` : `${found.length} of ${profiles.length} profiles`);
		}

		document.body.append(dialog);
		dialog.showModal();
		read('profiles').then((found) => { profiles = found.profiles; draw(); }, (problem) => say(summary, problem.message));
	});
}
