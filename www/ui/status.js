// SPDX-License-Identifier: GPL-2.0-or-later
// Am I protected, what is blocked, and why.

import { change, live, read } from '/api.js';
import { ask, button, h, icon, say, svg, tell } from '/element.js';
import { throughput, timeline } from '/graph.js';
import { pick } from '/picker.js';
import { NAMES, TABLE, clock, count, duration, octets, progress, reasonName, summary } from '/wording.js';

async function connect(profile) {
	const { warning } = await change('connect', { profile });
	if (warning)
		tell(warning, 'held');
}

async function disconnect() {
	if (live.status?.kill_switch.mode === 'standard') {
		const sure = await ask('Disconnect the VPN?', 'Your devices will use the internet without the VPN, and the kill switch will not block anything until you connect again.', 'Disconnect', { kind: 'danger' });
		if (!sure)
			return;
	}
	const { warning } = await change('disconnect');
	if (warning)
		tell(warning, 'held');
}

async function choose() {
	const name = await pick('Choose a location', (one) => one === live.status?.profile && 'in use');
	if (name)
		await connect(name);
}

function hero() {
	const image = h('span'), word = h('h1'), sentence = h('p', { 'class': 'sentence' }), more = h('p', { 'class': 'more number' });
	const on = button('Connect', 'main', () => connect(''));
	const off = button('Disconnect', '', disconnect);
	const other = button('Choose a location', '', choose);
	const element = h('section', { 'class': 'card hero tone-lost', 'aria-label': 'State' }, image,
		h('div', null, h('div', { 'aria-live': 'polite' }, word, sentence), more, h('div', { 'class': 'acts' }, on, off, other)));
	let drawn = '';

	function update() {
		const { word: text, tone, icon: name, sentence: long } = summary(live);
		say(word, text);
		say(sentence, long);
		say(more, progress(live));
		element.className = `card hero tone-${tone}`;
		if (drawn !== name) {
			element.replaceChild(icon(name), element.firstChild);
			drawn = name;
		}
		const { status } = live;
		const connected = status?.intent === 'connected';
		on.hidden = !status || connected;
		off.hidden = !status || !connected;
		other.hidden = !status;
		say(on, status?.profile ? `Connect to ${status.profile}` : 'Connect');
		for (const one of [ on, off, other ])
			one.disabled = !live.touch;
	}
	return { element, update };
}

function killSwitch() {
	const now = h('strong'), meaning = h('p', { 'class': 'hint' }), rows = new Map();
	const lever = h('button', { 'type': 'button', 'role': 'switch', 'class': 'locked', 'aria-checked': 'true', 'aria-disabled': 'true', 'aria-labelledby': 'ks', 'aria-describedby': 'ks-why',
		'onclick': () => tell('The kill switch cannot be turned off on a router. In standard mode, disconnect to use the internet without the VPN.', 'held') }, icon('lock'));
	for (const [ state, text ] of TABLE)
		rows.set(state, h('tr', null, h('td', null, h('span', null, NAMES[state]), h('br'), h('span', { 'class': 'small' }, text)), h('td'), h('td')));
	const element = h('section', { 'class': 'card' },
		h('h2', null, 'Kill switch'),
		h('div', { 'class': 'switch' }, lever, h('div', { 'class': 'stack' },
			h('p', { id: 'ks' }, 'On, and locked. ', now),
			h('p', { 'class': 'hint', 'id': 'ks-why' }, 'On a router it cannot be turned off: a gate for the whole house that any program could open would be none.'),
			meaning)),
		h('details', null, h('summary', null, 'When it blocks'),
			h('div', { 'class': 'scroll' }, h('table', { 'class': 'small' },
				h('thead', null, h('tr', null, h('th', { scope: 'col' }, 'State'), h('th', { scope: 'col' }, 'Standard'), h('th', { scope: 'col' }, 'At all times'))),
				h('tbody', null, [ ...rows.values() ])))));

	function update({ state, kill_switch: kill }) {
		say(now, kill.active ? 'It is blocking everything outside the tunnel.' : 'It blocks nothing right now, as you chose.');
		say(meaning, `${kill.meaning[0].toUpperCase()}${kill.meaning.slice(1)}. ${kill.advice}`);
		for (const [ name, , standard ] of TABLE) {
			const row = rows.get(name), at = name === state;
			row.className = at ? 'now' : '';
			if (at)
				row.setAttribute('aria-current', 'true');
			else
				row.removeAttribute('aria-current');
			say(row.children[1], `${standard ? 'Blocks' : 'Does not block'}${at && kill.mode === 'standard' ? ' (now)' : ''}`);
			say(row.children[2], `Blocks${at && kill.mode !== 'standard' ? ' (now)' : ''}`);
		}
	}
	return { element, update };
}

function connection() {
	const list = h('dl', { 'class': 'facts' }), shown = new Map();
	const element = h('section', { 'class': 'card' }, h('h2', null, 'Connection'), list);

	function update(status) {
		const { tunnel } = status;
		const age = tunnel.handshake_age ?? -1;
		const facts = {
			'State': `${NAMES[status.state]}, since ${clock(status.since, live.offset)}`,
			'Location': status.profile,
			'Server': status.endpoints.join(', '),
			'Last handshake': age >= 0 ? `${duration(age)} ago` : '',
			'Received': tunnel.received === undefined ? '' : octets(tunnel.received),
			'Sent': tunnel.sent === undefined ? '' : octets(tunnel.sent),
			'DNS servers': status.resolvers.join(', '),
			'Protected networks': status.networks.map((network) => network.name).join(', ') || 'none found',
		};
		for (const [ name, text ] of Object.entries(facts)) {
			if (!shown.has(name)) {
				const pair = [ h('dt', null, name), h('dd') ];
				shown.set(name, pair);
				list.append(...pair);
			}
			const [ term, value ] = shown.get(name);
			term.hidden = value.hidden = !text;
			say(value, text);
		}
	}
	return { element, update };
}

function counters() {
	const list = h('ul', { 'class': 'bars' });
	const element = h('section', { 'class': 'card' }, h('h2', null, 'Blocked, by reason'), list);
	const shown = new Map();
	const none = h('li', { 'class': 'quiet' }, 'Nothing had to be blocked yet.');

	function update({ blocked }) {
		const found = Object.entries(blocked).filter(([ , packets ]) => packets).sort((one, other) => other[1] - one[1]);
		none.hidden = found.length > 0;
		const most = Math.max(1, ...found.map(([ , packets ]) => packets));
		for (const [ name, packets ] of found) {
			if (!shown.has(name)) {
				const number = h('span', { 'class': 'number' }), bar = svg('rect', { height: 6 });
				const row = h('li', null, h('span', null, reasonName(name)), number,
					svg('svg', { 'viewBox': '0 0 100 6', 'preserveAspectRatio': 'none', 'aria-hidden': 'true' }, svg('rect', { 'class': 'rail', 'width': 100, 'height': 6 }), bar));
				shown.set(name, { row, number, bar });
				list.append(row);
			}
			const { number, bar } = shown.get(name);
			say(number, `${count(packets)} packets`);
			bar.setAttribute('width', Math.max(1, 100 * packets / most));
		}
	}
	list.append(none);
	return { element, update };
}

function faults() {
	const list = h('ul'), element = h('section', { 'class': 'say tone-held', 'role': 'status', 'hidden': true }, h('strong', null, 'Needs your attention'), list);
	let drawn = '';

	function update(status) {
		const lines = [ ...status.faults, ...status.tunnel.notes ];
		element.hidden = !lines.length;
		if (drawn !== lines.join('\n')) {
			list.replaceChildren(...lines.map((line) => h('li', null, line)));
			drawn = lines.join('\n');
		}
	}
	return { element, update };
}

function day() {
	const place = h('div', null, h('p', { 'class': 'quiet' }, 'Reading …'));
	const element = h('section', { 'class': 'card' },
		h('div', { 'class': 'split' }, h('h2', null, 'The last 24 hours'), h('span', { 'class': 'small quiet' }, 'Kept in memory, since Portcullis started')), place);
	let drawn = 0;

	async function update(state) {
		if (drawn && Date.now() - drawn.time < 60000 && drawn.state === state)
			return;
		drawn = { time: Date.now(), state };
		try {
			const [ { events }, traffic ] = await Promise.all([ read('events'), read('traffic') ]);
			place.replaceChildren(timeline(events, traffic, live.status, live.now(), live.offset, place));
		} catch (problem) {
			if (!place.querySelector('figure'))
				place.replaceChildren(h('p', { 'class': 'quiet' }, problem.message));
		}
	}
	return { element, update };
}

export function statusPage(main) {
	const parts = { hero: hero(), faults: faults(), kill: killSwitch(), connection: connection(), graph: throughput(), day: day(), counters: counters() };
	const rest = h('div', { 'class': 'stack', 'hidden': true },
		h('div', { 'class': 'pair' }, parts.kill.element, parts.connection.element),
		h('section', { 'class': 'card' }, h('h2', null, 'Traffic through the tunnel'), parts.graph.element),
		parts.day.element, parts.counters.element);
	main.append(parts.hero.element, parts.faults.element, rest);

	const update = () => {
		parts.hero.update();
		if (!live.status)
			return;
		rest.hidden = false;
		rest.classList.toggle('stale', !live.touch);
		for (const name of [ 'faults', 'kill', 'connection', 'counters' ])
			parts[name].update(live.status);
		parts.graph.update(live.samples, Date.now() / 1000);
		if (live.touch)
			parts.day.update(live.status.state);
	};
	const tick = setInterval(() => parts.hero.update(), 1000);
	live.listeners.add(update);
	update();
	return () => {
		live.listeners.delete(update);
		clearInterval(tick);
	};
}
