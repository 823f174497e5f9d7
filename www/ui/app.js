// SPDX-License-Identifier: GPL-2.0-or-later
// The frame: who is logged in, which page is shown, and the state in one word on every page.

import { live, logout, resume, whenEnded } from '/api.js';
import { button, h, say } from '/element.js';
import { showLogin } from '/login.js';
import { summary } from '/wording.js';
import { statusPage } from '/status.js';
import { devicesPage } from '/devices.js';
import { settingsPage } from '/settings.js';

const PAGES = { status: [ 'Status', statusPage ], devices: [ 'Devices', devicesPage ], settings: [ 'Settings', settingsPage ] };

let leave = null;
let pages = null;

function frame() {
	const pill = h('span', { 'class': 'pill', 'role': 'status' }, 'One moment');
	const links = Object.entries(PAGES).map(([ name, [ title ] ]) => h('a', { href: `#${name}` }, title));
	const main = h('main', { id: 'main', tabindex: -1 });
	document.body.className = '';
	document.body.replaceChildren(
		h('a', { 'class': 'skip', 'href': '#main', 'onclick': (event) => { event.preventDefault(); main.focus(); } }, 'Skip to the content'),
		h('header', { 'class': 'top' }, h('div', null,
			h('span', { 'class': 'brand' }, h('img', { src: '/icon.svg', alt: '' }), 'Portcullis'),
			h('nav', { 'aria-label': 'Pages' }, links),
			pill,
			button('Log out', 'plain slim out', async() => { await logout(); ended(''); }))),
		main);
	const follow = () => {
		const { word, tone } = summary(live);
		say(pill, word);
		pill.className = `pill tone-${tone}`;
		document.title = `${word} · Portcullis`;
	};
	live.listeners.add(follow);
	follow();
	return { main, links };
}

function show(focus) {
	if (!pages)
		return;
	const wanted = location.hash.slice(1);
	const name = wanted in PAGES ? wanted : 'status';
	for (const link of pages.links) {
		if (link.hash === `#${name}`)
			link.setAttribute('aria-current', 'page');
		else
			link.removeAttribute('aria-current');
	}
	leave?.();
	pages.main.replaceChildren();
	leave = PAGES[name][1](pages.main);
	if (focus) {
		scrollTo(0, 0);
		pages.main.focus({ preventScroll: true });
	}
}

function enter() {
	pages = frame();
	live.start();
	show(false);
}

function ended(reason) {
	live.stop();
	live.listeners.clear();
	Object.assign(live, { status: null, touch: false, samples: [] });
	leave?.();
	leave = pages = null;
	for (const dialog of document.querySelectorAll('dialog'))
		dialog.remove();
	showLogin(enter, reason);
}

whenEnded((reason) => {
	if (pages)
		ended(reason || 'Your session has ended. Log in again.');
});

addEventListener('hashchange', () => show(true));

document.addEventListener('visibilitychange', () => {
	if (!pages)
		return;
	if (document.hidden)
		live.stop();
	else
		live.start();
});

async function begin() {
	document.body.replaceChildren(h('main', { 'class': 'notice' }, h('p', { role: 'status' }, 'Asking the router how things are …')));
	try {
		await resume();
		enter();
	} catch (problem) {
		showLogin(enter, problem.status === 401 ? '' : problem.message);
	}
}

begin();
