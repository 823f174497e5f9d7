// SPDX-License-Identifier: GPL-2.0-or-later
// Does the block hold, what happened, and a report to pass on.

import { live, read } from '/api.js';
import { h, say } from '/element.js';
import { selftest } from '/selftest.js';
import { NAMES, clock } from '/wording.js';

const LOG_EVERY = 3000;

function happened() {
	const body = h('tbody'), empty = h('p', { 'class': 'quiet', 'hidden': true }, 'Nothing has happened since Portcullis started.');
	const element = h('details', { 'ontoggle': () => element.open && load() }, h('summary', null, 'What happened'), h('div', { 'class': 'scroll' }, h('table', { 'class': 'small' },
		h('thead', null, h('tr', null, [ 'When', 'State', 'Kill switch' ].map((text) => h('th', { scope: 'col' }, text)))), body)), empty);

	async function load() {
		try {
			const { events } = await read('events');
			empty.hidden = events.length > 0;
			body.replaceChildren(...events.slice(0, 30).map((event) => h('tr', null, h('td', { 'class': 'number' }, clock(event.time, live.offset)),
				h('td', null, NAMES[event.state] ?? event.state, h('div', { 'class': 'small quiet' }, event.reason)),
				h('td', null, event.kill_switch_active ? 'blocks' : 'does not block'))));
		} catch (problem) {
			empty.hidden = false;
			say(empty, problem.message);
		}
	}
	return element;
}

const LEVELS = { warning: [ 'warning', 'held' ], error: [ 'error', 'bad' ], critical: [ 'error', 'bad' ] };

function log() {
	let timer = null, lines = [], last = '';
	const list = h('ol', { 'class': 'log small', 'tabindex': 0, 'aria-label': 'Log lines, newest first' }), note = h('p', { 'class': 'quiet', 'role': 'status' }, 'Reading …');
	const only = h('input', { 'type': 'checkbox', 'id': 'only', 'onchange': () => draw() });
	const element = h('details', { 'ontoggle': () => (element.open ? load() : stop()) }, h('summary', null, 'Log'),
		h('div', { 'class': 'stack' }, h('label', { 'class': 'tick', 'for': 'only' }, only, 'Warnings and errors only'), list, note));

	function draw() {
		const shown = lines.filter(({ level }) => !only.checked || level in LEVELS).reverse();
		list.replaceChildren(...shown.map(({ time, level, text }) => h('li', null, h('span', { 'class': 'number quiet' }, clock(time, live.offset, true)),
			h('span', null, level in LEVELS ? h('strong', { 'class': `tag tone-${LEVELS[level][1]}` }, LEVELS[level][0]) : null, text))));
		list.hidden = !shown.length;
		note.hidden = shown.length > 0;
		say(note, lines.length ? 'No warnings and no errors: all is well.' : 'Nothing has been logged yet.');
	}

	async function load() {
		stop();
		timer = setTimeout(load, LOG_EVERY);
		try {
			({ lines } = await read('log'));
			const text = JSON.stringify(lines);
			if (text !== last)
				draw();
			last = text;
		} catch (problem) {
			note.hidden = false;
			say(note, problem.message);
		}
	}

	function stop() {
		clearTimeout(timer);
	}
	return { element, stop };
}

export function diagnosticsCard() {
	const version = h('span', { 'class': 'small quiet' });
	const update = () => say(version, live.status ? `Version ${live.status.version}` : '');
	const test = selftest(), lines = log();
	const element = h('section', { 'class': 'card stack' }, h('div', { 'class': 'split' }, h('h2', null, 'Diagnostics'), version),
		test.element,
		h('div', { 'class': 'stack part' }, h('h3', null, 'Report'),
			h('p', { 'class': 'hint' }, 'For whoever helps you: state, settings, networks, devices, events and log of this router. Keys are removed. Look through it before you pass it on.'),
			h('div', null, h('a', { 'class': 'button', 'href': '/api/report', 'download': '' }, 'Download the report'))),
		h('div', { 'class': 'part' }, happened(), lines.element));
	live.listeners.add(update);
	update();
	return { element, stop: () => { live.listeners.delete(update); test.stop(); lines.stop(); } };
}
