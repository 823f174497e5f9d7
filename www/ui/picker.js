// SPDX-License-Identifier: GPL-2.0-or-later
// Choosing a profile out of a few, or out of thousands.

import { read } from '/api.js';
import { h, say } from '/element.js';

const AGAIN = 700;

// Asks the router for the profiles that match; only the last question counts. While files are still
// being read, it is asked again. `find` resolves when its answer is shown.
export function finder(show, fail) {
	let last = 0, again = null, shown = '';

	async function find(search, anew) {
		const mine = ++last;
		clearTimeout(again);
		try {
			const found = await read('find_profiles', { search });
			if (mine !== last)
				return;
			if (found.unread)
				again = setTimeout(() => find(search), AGAIN);
			const text = JSON.stringify(found);
			if (anew || text !== shown)
				show(found);
			shown = text;
		} catch (problem) {
			if (mine === last)
				fail(problem);
		}
	}
	find.stop = () => {
		last++;
		clearTimeout(again);
	};
	return find;
}

export function howMany({ profiles, matching, total, unread }) {
	if (!total)
		return 'There are no profiles yet.';
	const reading = unread ? ' Still reading them: the search knows all names, but not all servers.' : '';
	if (matching > profiles.length)
		return `${matching} profiles, the first ${profiles.length} shown: type more to narrow it down.${reading}`;
	return (matching ? `${matching} of ${total} profile${total === 1 ? '' : 's'}.` : 'No profile has that in its name or server.') + reading;
}

// Resolves to the name of the profile chosen, or to null. `mark` says of a name why it is special.
export function pick(title, mark) {
	return new Promise((resolve) => {
		let chosen = null, pending = null;
		const list = h('ul', { 'class': 'list' });
		const summary = h('p', { 'class': 'small quiet', 'role': 'status' }, 'Reading the profiles …');
		const search = h('input', { 'type': 'search', 'placeholder': 'Search by name or server', 'aria-label': 'Search profiles', 'autocomplete': 'off', 'autofocus': true,
			'oninput': () => { pending = find(search.value); },
			'onkeydown': async(event) => {
				if (event.key !== 'ArrowDown' && event.key !== 'Enter')
					return;
				event.preventDefault();
				await pending; // what is chosen is what was typed
				const first = list.querySelector('button:not([disabled])');
				if (event.key === 'Enter')
					first?.click();
				else
					first?.focus();
			} });
		list.addEventListener('keydown', (event) => {
			const step = { ArrowDown: 'nextElementSibling', ArrowUp: 'previousElementSibling' }[event.key];
			if (!step)
				return;
			event.preventDefault();
			const next = event.target.closest('li')?.[step]?.querySelector('button');
			(next ?? (event.key === 'ArrowUp' ? search : null))?.focus();
		});
		const dialog = h('dialog', { 'aria-label': title, 'onclose': () => { find.stop(); dialog.remove(); resolve(chosen); } },
			h('div', null,
				h('div', { 'class': 'split' }, h('h2', null, title),
					h('button', { 'type': 'button', 'class': 'plain slim', 'onclick': () => dialog.close() }, 'Cancel')),
				search, summary, list));

		const find = finder((found) => {
			list.replaceChildren(...found.profiles.map(({ name, usable, server }) => h('li', null,
				h('button', { 'type': 'button', 'disabled': !usable, 'aria-current': mark(name) ? 'true' : null,
					'onclick': () => { chosen = name; dialog.close(); } },
				h('span', null, name, mark(name) && h('span', { 'class': 'tag' }, mark(name))),
				h('span', { 'class': 'small quiet' }, usable ? server : 'cannot be used')))));
			say(summary, found.total ? howMany(found) : 'There are no profiles yet. Import one on the page Settings.');
		}, (problem) => say(summary, problem.message));

		document.body.append(dialog);
		dialog.showModal();
		pending = find('');
	});
}
