// SPDX-License-Identifier: GPL-2.0-or-later
// Profiles: what there is, and importing more of them by paste, by file, or many files at once.

import { change } from '/api.js';
import { ask, button, h, say, tell } from '/element.js';
import { finder, howMany } from '/picker.js';

const SIZE_MAX = 65536;

// A file's name as a profile's: what may stand in one, and nothing else.
export function nameFrom(file) {
	return file.replace(/[.]conf$/i, '').replace(/[^A-Za-z0-9_.-]+/g, '-').replace(/^[^A-Za-z0-9]+/, '').replace(/-+$/, '').slice(0, 64);
}

function complaint(name, problem) {
	const lines = problem.problems?.length ? problem.problems : [ { line: 0, key: '', reason: problem.message } ];
	return h('div', { 'class': 'say tone-bad', 'role': 'alert' }, h('strong', null, `${name} was not imported`),
		h('ul', null, lines.map(({ line, key, reason }) => h('li', null,
			line ? h('span', { 'class': 'tag tone-bad' }, `line ${line}`) : null, line ? ' ' : '',
			key ? h('span', { 'class': 'mono' }, `${key}: `) : null, reason))));
}

export function profilesCard(changed) {
	const total = h('p', { 'class': 'small quiet', 'role': 'status' }, 'Reading …');
	const list = h('ul', { 'class': 'rows' }), results = h('div', { 'class': 'stack' });
	const search = h('input', { 'type': 'search', 'placeholder': 'Search by name or server', 'aria-label': 'Search profiles', 'oninput': () => find(search.value) });

	const files = h('input', { 'type': 'file', 'multiple': true, 'accept': '.conf,text/plain', 'class': 'unseen', 'id': 'files', 'tabindex': -1, 'aria-hidden': 'true', 'onchange': async() => { await take([ ...files.files ]); files.value = ''; } });
	const drop = h('div', { 'class': 'drop',
		'ondragover': (event) => { event.preventDefault(); drop.classList.add('over'); },
		'ondragleave': () => drop.classList.remove('over'),
		'ondrop': async(event) => { event.preventDefault(); drop.classList.remove('over'); await take([ ...event.dataTransfer.files ]); } },
	h('p', null, 'Drop your provider’s WireGuard files here, one or many'),
	button('Choose files', '', () => files.click()), files);

	const name = h('input', { id: 'new-name', maxlength: 64, autocapitalize: 'off', spellcheck: 'false', placeholder: 'sweden-3' });
	const text = h('textarea', { id: 'new-text', spellcheck: 'false', autocapitalize: 'off', placeholder: '[Interface]\nPrivateKey = …\nAddress = …\n\n[Peer]\n…' });
	const paste = h('details', null, h('summary', null, 'Paste one instead'), h('form', { 'class': 'stack', 'onsubmit': async(event) => {
		event.preventDefault();
		results.replaceChildren();
		if (await store(name.value.trim(), text.value)) {
			name.value = text.value = '';
			tell('Imported.');
		}
		await load();
	} },
	h('div', { 'class': 'field' }, h('label', { for: 'new-name' }, 'Name'), name),
	h('div', { 'class': 'field' }, h('label', { for: 'new-text' }, 'Contents'), text),
	h('div', null, h('button', { 'class': 'main' }, 'Import'))));

	async function store(as, contents) {
		try {
			await change('import_profile', { name: as, text: contents });
			return true;
		} catch (problem) {
			if (problem.status !== 401)
				results.append(complaint(as || 'The profile', problem));
			return false;
		}
	}

	async function take(chosen) {
		results.replaceChildren();
		let good = 0;
		for (const file of chosen) {
			say(total, `Importing ${file.name} …`);
			if (file.size > SIZE_MAX)
				results.append(complaint(file.name, { message: 'It is larger than 64 KiB, which no WireGuard file is.' }));
			else
				good += await store(nameFrom(file.name), await file.text());
		}
		if (good)
			results.prepend(h('div', { 'class': 'say tone-good', 'role': 'status' }, h('strong', null, good === 1 ? 'One profile imported' : `${good} profiles imported`)));
		await load();
	}

	function row(profile) {
		const rename = button('Rename', 'plain slim', async() => {
			const wanted = await ask(`Rename ${profile.name}`, 'The new name:', 'Rename', { value: profile.name });
			if (wanted && wanted !== profile.name) {
				await change('rename_profile', { name: profile.name, new_name: wanted });
				await load();
			}
		}, { 'aria-label': `Rename ${profile.name}` });
		const remove = button('Delete', 'plain slim', async() => {
			if (await ask(`Delete ${profile.name}?`, 'The file with its key is removed from the router. Your provider can give you a new one.', 'Delete', { kind: 'danger' })) {
				await change('delete_profile', { name: profile.name });
				await load();
			}
		}, { 'aria-label': `Delete ${profile.name}` });
		return h('li', null, h('div', { 'class': 'grow' }, h('strong', null, profile.name),
			h('span', { 'class': 'small quiet' }, profile.usable ? profile.server : ''),
			profile.note ? h('div', { 'class': 'small quiet' }, profile.note) : null,
			profile.usable ? null : h('div', { 'class': 'say tone-bad small' }, h('strong', null, 'Cannot be used. '), profile.problem.replace(`profile ${profile.name}, `, ''))),
		h('div', { 'class': 'acts' }, rename, remove));
	}

	const find = finder((found) => {
		search.hidden = found.total < 8;
		say(total, found.total ? howMany(found) : '');
		list.replaceChildren(...found.profiles.map(row));
		if (!found.total)
			list.append(h('li', { 'class': 'empty' }, h('div', null, h('strong', null, 'No profiles yet'), 'Download WireGuard files from your VPN provider and import them here.')));
		changed(found);
	}, (problem) => say(total, problem.message));

	const load = () => find(search.value, true);
	load();
	const element = h('section', { 'class': 'card stack', 'id': 'profiles' },
		h('div', { 'class': 'split' }, h('h2', null, 'Profiles'), total), search, list, results,
		h('h3', null, 'Import'), h('p', { 'class': 'hint' }, 'Commands in the files (PostUp and the like) are refused and never run.'), drop, paste);
	return { element, stop: find.stop };
}
