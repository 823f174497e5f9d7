// SPDX-License-Identifier: GPL-2.0-or-later
'use strict';
'require baseclass';
'require rpc';

// The daemon as LuCI reaches it. A call's promise is always fulfilled, with the daemon's reply or
// with one of the same form: a poll that rejects would leave on the page what it showed before.

const METHODS = {
	status: [],
	profiles: [],
	events: [],
	devices: [],
	connect: [ 'profile' ],
	disconnect: [],
	set: [ 'name', 'value' ],
	set_device: [ 'mac', 'access' ],
	token: []
};

function refusal(error) {
	const message = String(error?.message ?? error).split('\n')[0];

	if (/-32002\b|Access denied/.test(message))
		return { ok: false, code: 'denied', reason: _('Your login does not allow this.') };

	if (/-32000\b|Object not found/.test(message))
		return {
			ok: false, code: 'unreachable',
			reason: _('The router does not know the object luci.portcullis: restart rpcd or the router.')
		};

	return { ok: false, code: 'unreachable', reason: message };
}

function proper(reply) {
	if (typeof(reply?.ok) != 'boolean')
		return { ok: false, code: 'internal', reason: _('The router gave no proper answer.') };

	return reply;
}

const calls = {};

for (const method in METHODS) {
	const call = rpc.declare({
		object: 'luci.portcullis',
		method,
		params: METHODS[method],
		reject: true
	});

	calls[method] = (...values) => call(...values).then(proper, refusal);
}

return baseclass.extend(calls);
