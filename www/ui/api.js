// SPDX-License-Identifier: GPL-2.0-or-later
// What the router is asked, and what it tells by itself.

let token = '';
let onEnd = () => {};

export class Problem extends Error {
	constructor(status, found) {
		super(found.reason || 'The router does not answer. What it blocked stays blocked.');
		this.status = status;
		this.code = found.code ?? '';
		this.problems = found.problems ?? [];
	}
}

async function request(path, options) {
	let answer, found;
	try {
		answer = await fetch(`/api/${path}`, { credentials: 'same-origin', ...options });
		found = await answer.json();
	} catch {
		throw new Problem(0, {});
	}
	if (!answer.ok) {
		if (answer.status === 401)
			onEnd(found.reason);
		throw new Problem(answer.status, found);
	}
	return found;
}

export const read = (name, asked = {}) => request(`${name}?${new URLSearchParams(asked)}`.replace(/[?]$/, ''), {});

export const change = (name, values = {}) => request(name, {
	method: 'POST',
	headers: { 'Content-Type': 'application/json', 'X-Portcullis-Token': token },
	body: JSON.stringify(values),
});

export function whenEnded(callback) {
	onEnd = callback;
}

// Whether somebody is logged in already; LuCI may have handed its login over in the address.
export async function resume() {
	const given = /^#token=([0-9a-f]{64})$/.exec(location.hash);
	if (given) {
		history.replaceState(null, '', location.pathname);
		token = (await change('enter', { token: given[1] })).csrf;
	} else {
		token = (await read('session')).csrf;
	}
}

export async function login(username, password) {
	token = (await change('login', { username, password })).csrf;
}

export async function logout() {
	await change('logout');
	token = '';
}

const SILENCE = 7000;

// Follows the router as long as the page is looked at. `live.touch` is whether what it shows is true now.
export const live = {
	status: null,
	touch: false,
	reason: '',
	heard: 0,
	offset: 0,
	samples: [],
	listeners: new Set(),

	start() {
		this.stop();
		this.source = new EventSource('/api/live');
		this.source.addEventListener('status', (event) => this.take(JSON.parse(event.data)));
		this.source.addEventListener('lost', (event) => this.lose(JSON.parse(event.data).reason));
		this.source.addEventListener('quiet', () => { this.alive = Date.now(); });
		this.source.addEventListener('ended', (event) => { this.stop(); onEnd(JSON.parse(event.data).reason); });
		this.source.onerror = () => this.broken();
		this.began = this.alive = Date.now();
		this.watch ??= setInterval(() => this.check(), 1000);
	},

	stop() {
		this.source?.close();
		this.source = null;
		clearTimeout(this.again);
		clearInterval(this.watch);
		this.watch = null;
	},

	take(status) {
		this.alive = this.heard = Date.now();
		this.offset = status.now ? status.now - this.heard / 1000 : 0;
		this.status = status;
		this.touch = true;
		const { received = 0, sent = 0 } = status.tunnel ?? {};
		this.samples.push({ time: this.heard / 1000, received, sent });
		this.samples = this.samples.filter((sample) => sample.time > this.heard / 1000 - 180);
		this.tell();
	},

	lose(reason) {
		this.alive = Date.now();
		this.touch = false;
		this.reason = reason;
		this.tell();
	},

	check() {
		if (Date.now() - this.alive > SILENCE) {
			this.lose('');
			this.start();
		}
	},

	broken() {
		this.lose('');
		if (this.source?.readyState !== EventSource.CLOSED)
			return;
		clearTimeout(this.again);
		this.again = setTimeout(async() => {
			try {
				await read('session');
			} catch (problem) {
				if (problem.status === 401)
					return;
			}
			this.start();
		}, 1000);
	},

	tell() {
		for (const listener of this.listeners)
			listener(this);
	},

	// Seconds by the router's clock, which may differ from this device's.
	now() {
		return Date.now() / 1000 + this.offset;
	},
};
