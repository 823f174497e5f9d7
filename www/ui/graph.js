// SPDX-License-Identifier: GPL-2.0-or-later
// Drawings: the traffic of the last two minutes, and the day in states and blocked packets.

import { h, say, svg } from '/element.js';
import { NAMES, clock, count, duration, rate } from '/wording.js';

const SPAN = 120;

// One unit is one pixel, so that text in a drawing is as large as elsewhere.
function widthOf(element) {
	return Math.round(element.parentElement?.clientWidth || 600);
}

// Kept as octet counters, so that a missed sample bends no rate.
export function throughput() {
	const height = 140, foot = 16;
	const down = svg('path', { 'class': 'down' }), up = svg('path', { 'class': 'up' }), area = svg('path', { 'class': 'area' });
	const top = svg('text', { x: 0, y: 12 });
	const plot = svg('svg', { 'class': 'plot', 'height': height, 'role': 'img', 'aria-label': 'Traffic through the tunnel in the last two minutes' },
		svg('line', { 'class': 'grid', 'x1': 0, 'x2': '100%', 'y1': height - foot, 'y2': height - foot }),
		svg('line', { 'class': 'grid', 'x1': 0, 'x2': '100%', 'y1': 17, 'y2': 17 }),
		area, up, down, top,
		svg('text', { x: 0, y: height - 3 }, '2 min ago'), svg('text', { 'x': '100%', 'y': height - 3, 'text-anchor': 'end' }, 'now'));
	const downNow = h('strong'), upNow = h('strong');
	const key = h('p', { 'class': 'key' },
		h('span', null, h('i'), 'Download ', downNow), h('span', null, h('i', { 'class': 'up' }), 'Upload ', upNow));

	function update(samples, time) {
		const rates = [], width = widthOf(plot);
		for (let at = 1; at < samples.length; at++) {
			const before = samples[at - 1], now = samples[at], seconds = now.time - before.time;
			if (seconds > 0.3) {
				rates.push({ time: now.time, down: Math.max(0, now.received - before.received) / seconds,
					up: Math.max(0, now.sent - before.sent) / seconds });
			}
		}
		const shown = rates.filter((one) => one.time > time - SPAN);
		const most = Math.max(1250, ...shown.map((one) => Math.max(one.down, one.up)));
		const x = (one) => (width * (1 - (time - one.time) / SPAN)).toFixed(1);
		const y = (value) => (height - foot - (height - foot - 18) * value / most).toFixed(1);
		const line = (name) => shown.map((one, at) => `${at ? 'L' : 'M'}${x(one)} ${y(one[name])}`).join('');
		down.setAttribute('d', line('down'));
		up.setAttribute('d', line('up'));
		area.setAttribute('d', shown.length > 1 ? `${line('down')}L${x(shown.at(-1))} ${height - foot}L${x(shown[0])} ${height - foot}Z` : '');
		say(top, rate(most));
		say(downNow, rate(shown.at(-1)?.down ?? 0));
		say(upNow, rate(shown.at(-1)?.up ?? 0));
	}
	return { element: h('figure', { 'class': 'stack' }, plot, key), update };
}

const DAY = 86400;

function tone(state, active) {
	if (state === 'connected')
		return 'good';
	return active ? 'held' : 'bad';
}

// The states of the last day, oldest first: what each event began, up to the next one.
export function segments(events, now, current) {
	const found = [];
	let end = now;
	for (const event of events) {
		const begin = Math.max(event.time, now - DAY);
		if (end > begin)
			found.unshift({ begin, end, state: event.state, tone: tone(event.state, event.kill_switch_active) });
		end = Math.min(end, event.time);
		if (event.time <= now - DAY)
			break;
	}
	if (!events.length && current) {
		const begin = Math.max(current.since, now - DAY);
		found.push({ begin, end: now, state: current.state, tone: tone(current.state, current.kill_switch.active) });
	}
	return found;
}

export function timeline(events, traffic, status, now, offset, place) {
	const height = 134, base = 112, strip = 22, width = place.clientWidth || 600;
	const x = (time) => width * (1 - (now - time) / DAY);
	const plot = svg('svg', { 'class': 'plot', 'viewBox': `0 0 ${width} ${height}`, 'role': 'img', 'aria-label': 'The last 24 hours: states, and blocked packets' });
	const parts = segments(events, now, status);
	plot.append(svg('rect', { 'class': 'seg-lost', 'x': 0, 'y': 0, 'width': width, 'height': strip, 'rx': 4 }));
	for (const part of parts) {
		const box = svg('rect', { 'class': `seg-${part.tone}`, 'x': x(part.begin).toFixed(2), 'y': 0, 'height': strip,
			'width': Math.max(1.2, x(part.end) - x(part.begin)).toFixed(2) });
		box.append(svg('title', null, `${NAMES[part.state]}, ${clock(part.begin, offset)} to ${clock(part.end, offset)}`));
		plot.append(box);
	}
	const most = Math.max(1, ...traffic.blocked);
	plot.append(svg('line', { 'class': 'grid', 'x1': 0, 'x2': width, 'y1': base, 'y2': base }));
	traffic.blocked.forEach((packets, at) => {
		if (!packets)
			return;
		const tall = Math.max(1.5, (base - strip - 20) * packets / most);
		const bar = svg('rect', { 'class': 'blocked', 'x': x(now - traffic.ages[at]).toFixed(2), 'y': (base - tall).toFixed(1),
			'width': Math.max(1.4, width * traffic.step / DAY - 0.4).toFixed(2), 'height': tall.toFixed(1) });
		bar.append(svg('title', null, `${count(packets)} packets blocked, ${clock(now - traffic.ages[at], offset)}`));
		plot.append(bar);
	});
	if (most > 1)
		plot.append(svg('text', { x: 0, y: strip + 15 }, `${count(most)} blocked in ${traffic.step / 60} min`));
	for (const hours of width > 480 ? [ 24, 18, 12, 6 ] : [ 24, 12 ])
		plot.append(svg('text', { 'x': Math.max(0, x(now - hours * 3600)), 'y': base + 15, 'text-anchor': hours === 24 ? 'start' : 'middle' }, `${hours} h ago`));
	plot.append(svg('text', { 'x': width, 'y': base + 15, 'text-anchor': 'end' }, 'now'));

	const sums = { good: 0, held: 0, bad: 0, none: DAY };
	for (const part of parts) {
		sums[part.tone] += part.end - part.begin;
		sums.none -= part.end - part.begin;
	}
	const total = traffic.blocked.reduce((sum, packets) => sum + packets, 0);
	return h('figure', { 'class': 'stack' }, plot, h('p', { 'class': 'key' },
		[ [ 'good', 'Protected' ], [ 'held', 'Blocked' ], [ 'bad', 'Not protected' ], [ 'none', 'Before Portcullis started' ] ].map(([ name, text ]) =>
			sums[name] >= 1 && h('span', { 'class': `tone-${name}` }, h('i', { 'class': 'box' }), `${text} `, h('strong', null, duration(sums[name])))),
		h('span', null, 'Packets blocked ', h('strong', null, count(total)))));
}
