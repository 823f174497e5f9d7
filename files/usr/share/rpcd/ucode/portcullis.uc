// SPDX-License-Identifier: GPL-2.0-or-later
//
// The ubus object `luci.portcullis`: what LuCI may ask of the daemon.
//
// uhttpd and LuCI add `ubus_rpc_session` to every call, and python-ubus refuses arguments that it
// was not told of and misses those that are left out. So rpcd lets through the arguments declared
// here and no others, what is left out becomes "", and the daemon's object gets exactly its own.
// Who may call what is decided before (acl.d/portcullis.json).

'use strict';

import { connect } from 'ubus';

const DAEMON = 'portcullis';

// Longer than the daemon ever takes, shorter than LuCI waits (20 s) and rpcd does (30 s).
const TIMEOUT = 15;

// Every method, and its arguments, which are strings.
const METHODS = {
	status: [],
	get: [],
	profiles: [],
	events: [],
	devices: [],
	log: [],
	selftest_result: [],
	connect: [ 'profile' ],
	disconnect: [],
	set: [ 'name', 'value' ],
	reload: [],
	set_device: [ 'mac', 'access' ],
	selftest: [],
	import_profile: [ 'name', 'text' ],
	rename_profile: [ 'name', 'new_name' ],
	delete_profile: [ 'name' ],
	token: [],
};

let bus;

function failure(code, reason) {
	return { ok: false, code, reason };
}

function explain(status) {
	switch (status) {
	case UBUS_STATUS_TIMEOUT:
		return failure('timeout', `The Portcullis daemon did not answer within ${TIMEOUT} s.`);

	case UBUS_STATUS_METHOD_NOT_FOUND:
	case UBUS_STATUS_INVALID_ARGUMENT:
		return failure('mismatch', 'The running Portcullis daemon does not know this command: it ' +
			'is of another version. Restart it: service portcullis restart');

	default:
		return failure('unreachable', 'The Portcullis daemon cannot be reached. What it blocked ' +
			'stays blocked. Start it: service portcullis start');
	}
}

// Asked asynchronously: to answer, the daemon may need rpcd itself (its uci object), and rpcd has
// but one thread.
function forward(request, method, values) {
	bus ??= connect(null, TIMEOUT);

	const pending = bus?.defer(DAEMON, method, values, (status, reply) => {
		if (status != UBUS_STATUS_OK)
			reply = explain(status);
		else if (type(reply?.ok) != 'bool')
			reply = failure('internal', 'The Portcullis daemon gave no proper answer; see its log.');

		request.reply(reply);
	});

	return pending ?? explain(UBUS_STATUS_NOT_FOUND);
}

function publish(method, names) {
	const args = {};

	for (let name in names)
		args[name] = '';

	return {
		args,
		call: function(request) {
			const values = {};

			for (let name in names)
				values[name] = request.args[name] ?? '';

			// The one-time token is for the session that asks, and for no other.
			if (method == 'token')
				values.session = request.args.ubus_rpc_session ?? '';

			return forward(request, method, values);
		}
	};
}

const published = {};

for (let method, names in METHODS)
	published[method] = publish(method, names);

return { 'luci.portcullis': published };
