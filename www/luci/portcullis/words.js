// SPDX-License-Identifier: GPL-2.0-or-later
'use strict';
'require baseclass';

// What the page says about a reply of the daemon. Plain text throughout: names of profiles and
// devices come from outside, and the page makes text nodes of them.

const BLOCKED = {
	blocked_devices: _('IPv4 traffic of your devices'),
	blocked_ipv6: _('IPv6 traffic of your devices'),
	blocked_dns: _('DNS queries that were not for the resolvers of the tunnel'),
	blocked_router: _('Traffic of the router itself'),
	blocked_frames: _('Frames that got past the packet filter'),
	blocked_inbound: _('Packets from outside'),
	blocked_tunnel: _('Packets that came uninvited out of the tunnel')
};

const STATES = {
	not_connected: _('Not connected'),
	connecting: _('Connecting'),
	connected: _('Connected'),
	disconnecting: _('Disconnecting'),
	reconnecting: _('Reconnecting'),
	connection_failed: _('Connection failed')
};

function whileBlocking(status) {
	const profile = status.profile || _('the VPN');
	const since = clock(status.since);

	switch (status.state) {
	case 'connected':
		if (!status.networks?.length)
			return [ 'warning', _('Connected, but no network of this router is protected.') ];

		return [ 'success', _('Protected: all traffic goes through %s.').format(profile) ];

	case 'connecting':
		return [ 'warning', _('Blocked since %s: connecting to %s.').format(since, profile) ];

	case 'reconnecting':
		return [ 'warning', _('Blocked since %s: reconnecting to %s.').format(since, profile) ];

	case 'connection_failed':
		return [ 'warning', _('Blocked since %s: no connection to %s.').format(since, profile) ];

	case 'not_connected':
	case 'disconnecting':
		return [ 'warning', _('Blocked: disconnected, and the kill switch is enabled at all times.') ];

	default:
		return [ 'danger', _('In a state that this page does not know: %s.').format(status.state) ];
	}
}

function clock(seconds) {
	const when = new Date(seconds * 1000);

	return when.toDateString() == new Date().toDateString()
		? when.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
		: when.toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
}

return baseclass.extend({
	clock,

	// The one sentence that a person has to know, and the colour of LuCI's alerts that goes with
	// it. What counts is what the daemon says of the block, and only then the state: nothing is
	// green that is not known to be blocked.
	headline(status) {
		const block = status.kill_switch;

		if (!status.ok || !block)
			return [ 'danger', _('Out of touch: whether you are protected is not known.') ];

		if (block.active && !block.verified)
			return [ 'danger', _('Not verified: the block may have holes.') ];

		if (block.active)
			return whileBlocking(status);

		if (status.state == 'disconnecting')
			return [ 'danger', _('Not protected: disconnecting.') ];

		return [ 'danger', _('Not protected: the VPN is not connected.') ];
	},

	// The row of the state table at work, as the daemon words it. The template for translators
	// has all of these sentences (tests/luci/template.py).
	row(status) {
		return [ _(status.kill_switch.meaning), _(status.kill_switch.advice) ].map(sentence => {
			return sentence.charAt(0).toUpperCase() + sentence.slice(1).replace(/([^.])$/, '$1.');
		});
	},

	state(name) {
		return STATES[name] ?? String(name);
	},

	blocked(counters) {
		return Object.entries(counters ?? {})
			.filter(([ , packets ]) => packets > 0)
			.map(([ name, packets ]) => [ BLOCKED[name] ?? name, String(packets) ]);
	},

	activity(block) {
		if (!block.active)
			return _('Inactive: traffic leaves unprotected');

		return block.verified ? _('Active and verified') : _('Active, but NOT verified');
	},

	transfer(tunnel) {
		if (tunnel?.received == null)
			return null;

		return _('%1024.1mB received, %1024.1mB sent').format(tunnel.received, tunnel.sent);
	},

	handshake(tunnel) {
		return tunnel?.handshake_age >= 0 ? _('%d s ago').format(tunnel.handshake_age) : null;
	},

	attempt(tunnel) {
		if (!tunnel?.attempt)
			return null;

		return tunnel.next_attempt_in
			? _('%d, the next in %d s').format(tunnel.attempt, tunnel.next_attempt_in)
			: String(tunnel.attempt);
	}
});
