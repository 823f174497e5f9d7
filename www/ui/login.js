// SPDX-License-Identifier: GPL-2.0-or-later
// The log-in, with what anybody in the house may know above it.

import { login, read } from '/api.js';
import { h, say } from '/element.js';
import { clock } from '/wording.js';

export function showLogin(enter, reason) {
	const state = h('p', { 'class': 'small', 'role': 'status' });
	const problem = h('div', { 'class': 'say tone-bad', 'role': 'alert', 'hidden': !reason }, reason);
	const user = h('input', { id: 'user', name: 'username', value: 'root', autocomplete: 'username', autocapitalize: 'off', spellcheck: 'false', required: true });
	const password = h('input', { id: 'password', name: 'password', type: 'password', autocomplete: 'current-password' });
	const go = h('button', { 'class': 'main' }, 'Log in');
	const form = h('form', { 'onsubmit': async(event) => {
		event.preventDefault();
		go.disabled = true;
		problem.hidden = true;
		try {
			await login(user.value, password.value);
			clearInterval(timer);
			enter();
		} catch (error) {
			problem.hidden = false;
			say(problem, error.message);
			password.select();
		} finally {
			go.disabled = false;
		}
	} },
	h('div', { 'class': 'field' }, h('label', { for: 'user' }, 'User name'), user),
	h('div', { 'class': 'field' }, h('label', { 'for': 'password' }, 'Password ', h('span', { 'class': 'quiet' }, '(your router’s, as for LuCI)')), password),
	problem, go);
	document.body.className = 'lone';
	document.body.replaceChildren(h('main', null,
		h('div', { 'class': 'brand' }, h('img', { src: '/icon.svg', alt: '' }), 'Portcullis'),
		h('h1', null, 'Log in to your router'),
		state, form));
	document.title = 'Log in · Portcullis';
	password.focus();

	const ask = async() => {
		try {
			const why = await read('why');
			const since = clock(why.since);
			if (why.state === 'connected')
				say(state, `The VPN has been up since ${since}; everything else is blocked.`);
			else if (why.blocked)
				say(state, `The internet has been blocked since ${since}: ${why.sentence}`);
			else
				say(state, `Not protected since ${since}: traffic leaves without the VPN.`);
		} catch (error) {
			say(state, error.message);
		}
	};
	ask();
	const timer = setInterval(() => {
		if (document.body.className === 'lone')
			ask();
		else
			clearInterval(timer);
	}, 5000);
}
