// SPDX-License-Identifier: GPL-2.0-or-later
// Who is on the local network, and who may reach whom.

import { change, live, read } from '/api.js';
import { h, say, tell } from '/element.js';
import { clock, count } from '/wording.js';

const ACCESS = { 'default': 'As for all', 'allowed': 'Always allowed', 'denied': 'Always denied' };

const addresses = (device) => [ ...device.ipv4, ...device.ipv6 ];

function row(device, reload) {
	const name = device.hostname || 'Unnamed device';
	const select = h('select', { 'aria-label': `Local access of ${name}`, 'onchange': async() => {
		select.disabled = true;
		try {
			await change('set_device', { mac: device.mac, access: select.value });
			tell(`${name}: ${ACCESS[select.value].toLowerCase()}`);
			await reload();
		} catch (problem) {
			select.value = device.access;
			tell(problem.message, 'bad');
		} finally {
			select.disabled = false;
		}
	} }, Object.entries(ACCESS).map(([ value, text ]) => h('option', { value, selected: value === device.access }, text)));
	const link = device.wireless === true ? 'Wi-Fi' : device.wireless === false ? 'cable' : '';
	const seen = device.online ? `since ${clock(device.first_seen, live.offset)}` : device.last_seen ? `last seen ${clock(device.last_seen, live.offset)}` : 'not seen yet';
	return h('tr', null,
		h('td', null, h('strong', null, name), h('div', { 'class': 'mono quiet' }, device.mac)),
		h('td', null, h('span', { 'class': `online ${device.online ? 'yes' : ''}` }, device.online ? 'Online' : 'Away'), h('div', { 'class': 'small quiet' }, seen)),
		h('td', { 'class': 'wide mono' }, addresses(device).map((address) => h('div', null, address))),
		h('td', { 'class': 'wide small' }, [ device.network, link ].filter(Boolean).join(', '),
			device.blocked.packets ? h('div', { 'class': 'quiet' }, `${count(device.blocked.packets)} packets blocked`) : null),
		h('td', { 'class': 'wide' }, select,
			device.enforced ? h('div', { 'class': 'small quiet' }, device.note) :
				h('div', { 'class': 'say tone-held small' }, h('strong', null, 'Cannot be enforced. '), device.note)));
}

function found(devices, search) {
	const words = search.toLowerCase().split(/\s+/).filter(Boolean);
	return devices.filter((device) => {
		const text = [ device.hostname, device.mac, device.network, ...addresses(device) ].join(' ').toLowerCase();
		return words.every((word) => text.includes(word));
	});
}

export function devicesPage(main) {
	let devices = [], gone = false;
	const lever = h('button', { 'type': 'button', 'role': 'switch', 'aria-checked': 'false', 'aria-labelledby': 'lan', 'aria-describedby': 'lan-why', 'onclick': async() => {
		const wanted = lever.getAttribute('aria-checked') === 'true' ? '0' : '1';
		lever.disabled = true;
		try {
			const { lan_access: now, warning } = await change('set', { name: 'lan_access', value: wanted });
			lever.setAttribute('aria-checked', String(now));
			tell(warning || (now ? 'Devices may reach each other.' : 'Devices cannot reach each other any more.'), warning ? 'held' : 'good');
			await load();
		} catch (problem) {
			tell(problem.message, 'bad');
		} finally {
			lever.disabled = false;
		}
	} });
	const total = h('p', { 'class': 'small quiet', 'role': 'status' }, 'Reading the devices …');
	const body = h('tbody');
	const search = h('input', { 'type': 'search', 'placeholder': 'Search by name, address or network', 'aria-label': 'Search devices', 'oninput': () => draw() });
	const empty = h('p', { 'class': 'empty', 'hidden': true });
	const table = h('table', { 'class': 'cards' }, h('thead', null, h('tr', null, [ 'Device', 'Seen', 'Addresses', 'Network', 'Local access' ].map((text) => h('th', { scope: 'col' }, text)))), body);
	main.append(
		h('h1', null, 'Devices'),
		h('section', { 'class': 'card' }, h('div', { 'class': 'switch' }, lever, h('div', null,
			h('p', { id: 'lan' }, h('strong', null, 'Allow access to devices on local network')),
			h('p', { 'class': 'hint', 'id': 'lan-why' }, 'On: your devices may use each other, such as printers and network drives, while the kill switch is active. Off: each of them reaches the internet through the tunnel and this router, and no other device.')))),
		h('section', { 'class': 'card stack' }, h('div', { 'class': 'split' }, h('h2', null, 'On your networks'), total), search,
			table, empty));

	function draw() {
		const shown = found(devices, search.value);
		const online = devices.filter((device) => device.online).length;
		say(total, shown.length === devices.length ? `${devices.length} devices, ${online} online` : `${shown.length} of ${devices.length} devices`);
		body.replaceChildren(...shown.map((device) => row(device, load)));
		empty.hidden = shown.length > 0;
		table.hidden = !shown.length;
		say(empty, devices.length ? 'No device matches your search.' : 'No device has been seen yet. Devices appear here as soon as they use the network.');
	}

	async function load() {
		try {
			const answer = await read('devices');
			if (gone)
				return;
			lever.setAttribute('aria-checked', String(answer.lan_access));
			devices = answer.devices.sort((one, other) => other.online - one.online || !one.hostname - !other.hostname || one.hostname.localeCompare(other.hostname));
			if (!body.contains(document.activeElement) || document.activeElement.disabled)
				draw();
		} catch (problem) {
			if (gone)
				return;
			lever.setAttribute('aria-checked', String(live.status?.lan_access ?? false));
			say(total, '');
			empty.hidden = devices.length > 0;
			say(empty, `The list cannot be read: ${problem.message}`);
		}
	}

	load();
	const timer = setInterval(load, 10000);
	return () => {
		gone = true;
		clearInterval(timer);
	};
}
