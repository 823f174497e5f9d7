// SPDX-License-Identifier: GPL-2.0-or-later
// Elements from plain values. Text only ever becomes a text node: nothing here parses HTML, and
// the page's policy (trusted types) forbids it too.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, properties, children) {
	for (const [ name, value ] of Object.entries(properties ?? {})) {
		if (name.startsWith('on'))
			element.addEventListener(name.slice(2), value);
		else if (value !== false && value !== null && value !== undefined)
			element.setAttribute(name, value === true ? '' : value);
	}
	element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
	return element;
}

export function h(tag, properties, ...children) {
	return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties, ...children) {
	return fill(document.createElementNS(SVG, tag), properties, children);
}

// Changes an element only where it differs, so that a screen reader speaks of changes alone.
export function say(element, text) {
	if (element.textContent !== text)
		element.textContent = text;
}

export function icon(name) {
	const paths = {
		shield: 'M12 2.500 4.500 5.500v6c0 4.700 3.200 8 7.500 10 4.300-2 7.500-5.300 7.500-10v-6zM8.300 12l2.600 2.600 4.800-5.100',
		gate: 'M4 21V11a8 8 0 0 1 16 0v10M8 6v15M12 3v18M16 6v15M4 11h16M4 16h16',
		open: 'M4 21V11a8 8 0 0 1 16 0v10M9 15h11m-4-4 4 4-4 4',
		wait: 'M12 3a9 9 0 1 0 9 9M12 7v5l3 2',
		lost: 'M3 9a13 13 0 0 1 18 0M6.500 12.500a8 8 0 0 1 11 0M10 16a3 3 0 0 1 4 0M12 19.500v.1M4 3l16 18',
		lock: 'M6 11h12v9H6zM8.500 11V8a3.500 3.500 0 0 1 7 0v3',
	};
	return svg('svg', { 'viewBox': '0 0 24 24', 'aria-hidden': 'true', 'fill': 'none', 'stroke': 'currentColor',
		'stroke-width': '1.8', 'stroke-linecap': 'round', 'stroke-linejoin': 'round' }, svg('path', { d: paths[name] }));
}

let toast = null;

// One short message at the bottom, which goes by itself.
export function tell(text, tone = 'good') {
	toast?.remove();
	toast = h('div', { 'class': `say toast tone-${tone}`, 'role': tone === 'bad' ? 'alert' : 'status' }, text);
	document.body.append(toast);
	const mine = toast;
	setTimeout(() => mine.remove(), tone === 'bad' ? 9000 : 4000);
}

// A button that is busy while its action lasts, and tells what went wrong.
export function button(text, kind, action, more) {
	const made = h('button', { 'type': 'button', 'class': kind, ...more, 'onclick': async() => {
		if (made.getAttribute('aria-busy') === 'true' || made.getAttribute('aria-disabled') === 'true')
			return;
		made.setAttribute('aria-busy', 'true');
		try {
			await action();
		} catch (problem) {
			if (problem.status !== 401)
				tell(problem.message, 'bad');
		} finally {
			made.removeAttribute('aria-busy');
		}
	} }, text);
	return made;
}

// Asks before what cannot be undone. Resolves to whether it was confirmed, or to the text asked for.
export function ask(title, text, yes, { kind = 'main', value = null } = {}) {
	return new Promise((resolve) => {
		const input = value === null ? null : h('input', { 'value': value, 'aria-label': title, 'maxlength': 64, 'autocapitalize': 'off', 'spellcheck': 'false' });
		const close = (answer) => { dialog.close(); dialog.remove(); resolve(answer); };
		const form = h('form', { 'class': 'stack', 'onsubmit': (event) => { event.preventDefault(); close(input ? input.value.trim() : true); } },
			h('p', null, text), input,
			h('div', { 'class': 'split' },
				h('button', { 'type': 'button', 'onclick': () => close(false) }, 'Cancel'),
				h('button', { 'class': kind }, yes)));
		const dialog = h('dialog', { 'aria-label': title, 'oncancel': (event) => { event.preventDefault(); close(false); } },
			h('div', null, h('h2', null, title), form));
		document.body.append(dialog);
		dialog.showModal();
		input?.select();
	});
}
