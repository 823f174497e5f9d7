// SPDX-License-Identifier: GPL-2.0-or-later
// Stands in for LuCI's browser run time, with as much of it as Portcullis's views use, and as
// strict: a bare string as contents is HTML, a rejected call rejects, a class that is asked for
// must have been required. Requests go to /ubus as JSON-RPC, classes come from /resources/.
'use strict';

(() => {
	const env = window.standin;   // { translations, permission, page }
	const isNode = value => value instanceof Node;

	String.prototype.format = function(...values) {
		return this.replace(/%(?:(\d+)(?:\.(\d+))?)?([sdm%])(B?)/g, (all, base, digits, kind, unit) => {
			if (kind == '%')
				return '%' + unit;

			const value = values.shift();

			if (kind == 's')
				return String(value) + unit;

			if (kind == 'd')
				return Math.floor(Number(value) || 0).toFixed(0) + unit;

			let rest = Number(value) || 0, at = 0;

			for (; rest > Number(base) && at < 4; at++)
				rest /= Number(base);

			return rest.toFixed(Number(digits ?? 2)) + ' ' + [ '', 'Ki', 'Mi', 'Gi', 'Ti' ][at] + unit;
		});
	};

	window._ = text => env.translations[text] ?? text;

	const dom = {
		append(node, contents) {
			if (Array.isArray(contents))
				for (const one of contents)
					node.appendChild(isNode(one) ? one : document.createTextNode(`${one}`));
			else if (typeof(contents) == 'function')
				dom.append(node, contents(node));
			else if (isNode(contents))
				node.appendChild(contents);
			else if (contents != null)
				node.innerHTML = `${contents}`;
		},

		content(node, contents) {
			node.replaceChildren();
			dom.append(node, contents);
		}
	};

	window.E = (what, attributes, contents) => {
		if (!(attributes instanceof Object) || Array.isArray(attributes) || isNode(attributes))
			[ attributes, contents ] = [ {}, attributes ];

		const node = Array.isArray(what)
			? document.createDocumentFragment() : document.createElement(what);

		for (const [ name, value ] of Object.entries(attributes))
			if (typeof(value) == 'function')
				node.addEventListener(name, value);
			else if (value != null)
				node.setAttribute(name, typeof(value) == 'object' ? JSON.stringify(value) : value);

		dom.append(node, contents);

		return node;
	};

	class Base {
		static extend(properties) {
			class Derived extends this {}
			Object.assign(Derived.prototype, properties);
			return Derived;
		}
	}

	class View extends Base {
		constructor() {
			super();
			this.shown = Promise.resolve(this.load()).then(data => this.render(data)).then(nodes => {
				dom.content(document.getElementById('view'), nodes);
			});
		}
	}

	const poll = {
		queue: [],
		timer: null,
		ticks: 0,

		add(fn, interval) {
			poll.queue.push({ fn, interval, idle: true });
		},

		start() {
			poll.timer = window.setInterval(poll.step, 1000);
		},

		stop() {
			window.clearInterval(poll.timer);
			poll.timer = null;
		},

		active: () => poll.timer != null,

		step() {
			for (const entry of poll.queue) {
				if (poll.ticks % entry.interval || !entry.idle)
					continue;

				entry.idle = false;
				Promise.resolve(entry.fn()).finally(() => { entry.idle = true; });
			}

			poll.ticks++;
		}
	};

	const rpc = {
		declare({ object, method, params, reject }) {
			return async (...values) => {
				const named = {};

				(params ?? []).forEach((name, at) => { named[name] = values[at]; });

				const response = await fetch('/ubus', {
					method: 'POST',
					body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'call',
						params: [ 'session', object, method, named ] })
				});

				if (!response.ok)
					throw new Error(`RPC call to ${object}/${method} failed with HTTP error ` +
						`${response.status}\n  at a stack`);

				const reply = await response.json();

				if (reply.error)
					throw new Error(`RPC call to ${object}/${method} failed with error ` +
						`${reply.error.code}: ${reply.error.message}\n  at a stack`);

				const [ status, data ] = reply.result;

				if (status != 0 && reject)
					throw new Error(`RPC call to ${object}/${method} failed with ubus code ` +
						`${status}: ?\n  at a stack`);

				return status == 0 ? data : status;
			};
		}
	};

	const ui = {
		createHandlerFn(self, handler, ...values) {
			const fn = typeof(handler) == 'string' ? self[handler] : handler;

			return event => {
				const control = event.currentTarget;

				control.classList.add('spinning');
				control.disabled = true;
				control.blur();
				Promise.resolve(fn.call(self, ...values, event)).finally(() => {
					control.classList.remove('spinning');
					control.disabled = false;
				});
			};
		},

		addNotification(title, contents, ...classes) {
			const note = E('div', { 'class': 'alert-message notification' }, title ? [ E('h4', {}, title) ] : []);

			dom.append(note, contents);
			note.classList.add(...classes);
			document.body.prepend(note);
		},

		showModal(title, contents) {
			ui.hideModal();

			const modal = E('div', { 'id': 'modal', 'class': 'modal' }, [ E('h4', {}, title) ]);

			dom.append(modal, contents);
			document.body.append(modal);
		},

		hideModal() {
			document.getElementById('modal')?.remove();
		}
	};

	const classes = { baseclass: Base, dom, poll, rpc, ui, view: View };

	window.L = {
		hasViewPermission: () => env.permission,
		url: path => '/cgi-bin/luci/' + path,

		require(name) {
			return classes[name] ??= (async () => {
				const address = `/resources/${name.replace(/\./g, '/')}.js`;
				const source = await (await fetch(address)).text();
				const needed = [ ...source.matchAll(/^'require (\S+?)(?: as (\S+))?';$/mg) ];
				const loaded = await Promise.all(needed.map(([ , one ]) => L.require(one)));
				const names = needed.map(([ , one, alias ]) => alias ?? one);
				const factory = (0, eval)(`(function(${[ 'window', 'document', 'L', ...names ]}) {` +
					`${source}\n})\n//# sourceURL=${address}`);
				const made = factory(window, document, L, ...loaded);

				if (!(made.prototype instanceof Base))
					throw new TypeError(`${name} yields no class`);

				return new made();
			})();
		}
	};

	// How the status overview uses its includes.
	async function overview(name) {
		const include = await L.require(name);
		const container = E('div');
		const step = async () => {
			const result = await include.load().catch(() => { include.failed = true; });
			const contents = include.failed ? null : include.render(result);

			if (contents != null)
				dom.content(container, contents);
		};

		await step();
		poll.add(step, 5);
		dom.content(document.getElementById('view'), [ E('h3', {}, [ include.title ]), container ]);
	}

	window.ready = (async () => {
		if (env.page.includes('status.include'))
			await overview(env.page);
		else
			await (await L.require(env.page)).shown;

		poll.start();
	})();
	window.poll = poll;
})();
