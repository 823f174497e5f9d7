// SPDX-License-Identifier: GPL-2.0-or-later
// The self-test, followed while it runs.

import { change, live, read } from '/api.js';
import { button, h, say } from '/element.js';
import { NAMES, clock } from '/wording.js';

const EVERY = 700;
const RESULTS = {
	waiting: [ 'waits', 'lost' ],
	running: [ 'testing …', 'held' ],
	pass: [ 'passed', 'good' ],
	fail: [ 'FAILED', 'bad' ],
	not_testable: [ 'not testable', 'lost' ],
};
const VERDICTS = {
	pass: [ 'good', 'Passed.', 'The block holds in all that could be tested.' ],
	fail: [ 'bad', 'Failed.', 'Something got through that should not have, see below. Download the report and tell whoever looks after this router.' ],
	not_testable: [ 'held', 'Not tested.', 'Nothing could be proven as things are now, see below.' ],
};

const sentence = (text) => text && `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? '' : '.'}`;

export function selftest() {
	let timer = null, gone = false;
	const start = button('Run the self-test', '', async() => {
		await change('selftest');
		await follow();
	});
	const progress = h('progress', { 'max': 1, 'value': 0, 'aria-label': 'Progress of the self-test', 'hidden': true });
	const now = h('p', { 'class': 'small quiet', 'role': 'status' });
	const verdict = h('p', { 'class': 'say', 'role': 'status', 'hidden': true }), word = h('strong'), meaning = h('span');
	verdict.append(word, ' ', meaning);
	const list = h('ul', { 'class': 'rows tests', 'aria-label': 'What is tested', 'hidden': true }), rows = new Map();
	const element = h('div', { 'class': 'stack part' }, h('h3', null, 'Self-test'),
		h('p', { 'class': 'hint' }, 'Tries with real packets, on this router, whether what must not leave does. It takes some ten seconds, changes nothing, and nobody in the house notices.'),
		h('div', null, start), progress, now, verdict, list);

	function draw(found) {
		const done = found.properties.filter(({ result }) => result !== 'waiting' && result !== 'running').length;
		const current = found.properties.find(({ result }) => result === 'running');
		start.disabled = found.running;
		say(start, found.running ? 'The self-test runs …' : found.finished ? 'Run it again' : 'Run the self-test');
		progress.hidden = !found.running;
		progress.max = found.properties.length || 1;
		progress.value = done;
		say(now, found.running ? `Test ${Math.min(done + 1, found.properties.length)} of ${found.properties.length}${current ? `: ${current.title}` : ''}` :
			found.finished ? `Finished at ${clock(found.finished, live.offset)}, in the state “${NAMES[found.state] ?? found.state}”.` : '');
		const [ tone, short, long ] = VERDICTS[found.verdict] ?? [ 'lost', '', '' ];
		verdict.hidden = found.running || !short;
		verdict.className = `say tone-${tone}`;
		say(word, short);
		say(meaning, found.verdict === 'not_testable' && found.state === 'not_connected' ? 'You are disconnected, so nothing is blocked that could be proven: connect, then run it again.' : long);
		list.hidden = !found.running && !found.finished;
		for (const property of found.properties)
			row(property);
	}

	function row({ property, title, result, detail, sent, seen }) {
		if (!rows.has(property)) {
			const made = { tag: h('span'), detail: h('div', { 'class': 'small quiet' }) };
			rows.set(property, made);
			list.append(h('li', null, h('div', { 'class': 'grow' }, h('strong', null, title, ' ', h('span', { 'class': 'small quiet' }, property)), made.detail), made.tag));
		}
		const { tag, detail: line } = rows.get(property), [ text, tone ] = RESULTS[result];
		tag.className = `tag tone-${tone}`;
		say(tag, text);
		say(line, [ sentence(detail), result === 'fail' && seen ? `${seen} of ${sent} packets were seen.` : '' ].filter(Boolean).join(' '));
	}

	async function follow() {
		clearTimeout(timer);
		try {
			const found = await read('selftest_result');
			draw(found);
			if (found.running && !gone)
				timer = setTimeout(follow, EVERY);
		} catch (problem) {
			say(now, problem.message);
			if (!gone && problem.status !== 401 && !progress.hidden)
				timer = setTimeout(follow, 3 * EVERY);
		}
	}

	follow();
	return { element, stop: () => { gone = true; clearTimeout(timer); } };
}
