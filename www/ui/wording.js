// SPDX-License-Identifier: GPL-2.0-or-later
// What each state is called, and the one honest sentence about it. Times are the router's, moved
// to this device's clock.

export const NAMES = {
	not_connected: 'Not connected',
	connecting: 'Connecting',
	connected: 'Connected',
	disconnecting: 'Disconnecting',
	reconnecting: 'Reconnecting',
	connection_failed: 'Connection failed',
};

// The state table, as the contract has it.
export const TABLE = [
	[ 'not_connected', 'You disconnected, or never connected', false ],
	[ 'connecting', 'The tunnel is being set up', true ],
	[ 'connected', 'Data flows through the tunnel', true ],
	[ 'disconnecting', 'You asked to disconnect', false ],
	[ 'reconnecting', 'The tunnel was lost and is being set up again', true ],
	[ 'connection_failed', 'Every try was in vain so far', true ],
];

export const REASONS = {
	blocked_devices: 'New connections of your devices',
	blocked_dns: 'DNS queries past the tunnel',
	blocked_ipv6: 'IPv6 outside the tunnel',
	blocked_router: 'The router’s own traffic',
	blocked_frames: 'What got past the packet filter',
	blocked_inbound: 'Packets from the internet',
	blocked_tunnel: 'Uninvited packets from the tunnel',
	blocked_lan: 'Between devices on your network',
};

export function reasonName(name) {
	return REASONS[name] ?? name.replace(/^blocked_/, '').replaceAll('_', ' ');
}

const DOWN = 'Your devices cannot reach the internet until it is back.';

export function clock(seconds, offset = 0, exact = false) {
	const moment = new Date((seconds - offset) * 1000);
	const time = moment.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', ...(exact && { second: '2-digit' }) });
	if (moment.toDateString() === new Date().toDateString())
		return time;
	return `${time} on ${moment.toLocaleDateString([], { day: 'numeric', month: 'short' })}`;
}

export function duration(seconds) {
	const whole = Math.max(0, Math.round(seconds));
	if (whole < 60)
		return `${whole} s`;
	if (whole < 3600)
		return `${Math.floor(whole / 60)} min`;
	if (whole < 86400)
		return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
	return `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h`;
}

export function octets(number) {
	let value = number, unit = 0;
	while (value >= 1000 && unit < 4) {
		value /= 1000;
		unit++;
	}
	return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${[ 'B', 'kB', 'MB', 'GB', 'TB' ][unit]}`;
}

export function rate(perSecond) {
	let value = perSecond * 8, unit = 0;
	while (value >= 1000 && unit < 3) {
		value /= 1000;
		unit++;
	}
	return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${[ 'bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s' ][unit]}`;
}

export const count = (number) => number.toLocaleString('en');

function because(reason) {
	if (!reason || reason.startsWith('the owner') || reason === 'start')
		return '';
	return ` The reason: ${reason.replace(/[.]$/, '')}.`;
}

// { word, tone, icon, sentence } for what the router said last, and whether it is still in touch.
export function summary(live) {
	const { status, touch, heard, offset } = live;
	if (!status)
		return { word: 'One moment', tone: 'lost', icon: 'wait', sentence: 'Asking the router how things are.' };
	if (!touch) {
		return { word: 'Out of touch', tone: 'lost', icon: 'lost',
			sentence: `The router has not answered since ${clock(heard / 1000)}. What it blocked stays blocked. What you see below is from then.` };
	}
	const { state, reason, kill_switch: kill } = status;
	const name = status.profile || 'the VPN', since = clock(status.since, offset);
	if (kill.active && !kill.verified) {
		return { word: 'Not verified', tone: 'bad', icon: 'open',
			sentence: 'The block could not be checked and may have holes. See the faults below. Portcullis keeps trying to put it right.' };
	}
	switch (state) {
	case 'connected':
		return { word: 'Protected', tone: 'good', icon: 'shield', sentence: `All traffic goes through ${name}. Everything else is blocked.` };
	case 'connecting':
		return { word: 'Blocked', tone: 'held', icon: 'gate', sentence: `Connecting to ${name} since ${since}. Your devices cannot reach the internet until the VPN is up.` };
	case 'reconnecting':
		if (reason === 'settings changed' || reason.startsWith('the owner'))
			return { word: 'Blocked', tone: 'held', icon: 'gate', sentence: `Changing over to ${name}, as you asked. ${DOWN}` };
		return { word: 'Blocked', tone: 'held', icon: 'gate', sentence: `The VPN dropped at ${since}, and is being set up again.${because(reason)} ${DOWN}` };
	case 'connection_failed':
		return { word: 'Blocked', tone: 'held', icon: 'gate', sentence: `Connecting to ${name} has failed.${because(reason)} ${DOWN}` };
	case 'disconnecting':
		return { word: 'Disconnecting', tone: kill.active ? 'held' : 'bad', icon: 'wait', sentence: 'The tunnel is being taken down, as you asked.' };
	default: {
		const when = status.profile ? `You disconnected at ${since}.` : 'Nothing has been connected yet.';
		if (kill.active)
			return { word: 'Blocked', tone: 'held', icon: 'gate', sentence: `${when} The kill switch is set to “at all times”, so your devices cannot reach the internet until you connect.` };
		return { word: 'Not protected', tone: 'bad', icon: 'open', sentence: `${when} Traffic leaves your house without the VPN.` };
	}
	}
}

// What changes from second to second.
export function progress(live) {
	const { status, touch } = live;
	if (!status || !touch)
		return touch || !status ? '' : 'Trying to reach it again …';
	const { attempt, next_attempt_in: wait } = status.tunnel;
	if (status.state === 'connected')
		return `Connected for ${duration(live.now() - status.since)}`;
	if (![ 'connecting', 'reconnecting', 'connection_failed' ].includes(status.state) || !attempt)
		return '';
	const left = Math.round(wait - (Date.now() - live.heard) / 1000);
	return wait && left > 0 ? `Attempt ${attempt + 1} in ${left} s` : `Attempt ${attempt} under way …`;
}
