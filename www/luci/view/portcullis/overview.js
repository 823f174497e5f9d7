// SPDX-License-Identifier: GPL-2.0-or-later
'use strict';
'require view';
'require poll';
'require ui';
'require portcullis.daemon as daemon';
'require portcullis.layout as layout';
'require portcullis.words as words';

const EVERY = 3;           // seconds between looks at the state
const EVERY_LIST = 9;      // … at profiles, devices and events
const STALE = 10000;       // ms after which what was heard last is no longer shown as true
const EVENTS = 20;

const ACCESS = [
	[ 'default', _('As set for all') ],
	[ 'allowed', _('Always allowed') ],
	[ 'denied', _('Always denied') ]
];

function button(style, label, handler) {
	return E('button', { 'class': 'btn cbi-button cbi-button-' + style, 'click': handler }, [ label ]);
}

function complain(reply) {
	if (!reply.ok)
		ui.addNotification(null, [ E('p', {}, [ reply.reason ]) ], 'danger');
	else if (reply.warning)
		ui.addNotification(null, [ E('p', {}, [ reply.warning ]) ], 'warning');

	return reply;
}

// Asks before traffic leaves the house unprotected.
function confirmed(question, label) {
	return new Promise(resolve => {
		const close = answer => {
			ui.hideModal();
			resolve(answer);
		};

		ui.showModal(_('Leave unprotected?'), [
			E('p', {}, [ question ]),
			E('div', { 'class': 'right' }, [
				button('neutral', _('Cancel'), () => close(false)), ' ',
				button('negative', label, () => close(true))
			])
		]);
	});
}

return view.extend({
	load() {
		return Promise.all([
			daemon.status(), daemon.profiles(), daemon.devices(), daemon.events()
		]);
	},

	render([ status, profiles, devices, events ]) {
		this.readonly = !L.hasViewPermission();
		this.chosen = null;
		this.compose();
		this.show(status);
		this.showProfiles(profiles);
		this.showDevices(devices);
		this.showEvents(events);

		poll.add(() => this.refresh(), EVERY);
		poll.add(() => this.refreshLists(), EVERY_LIST);
		window.setInterval(() => this.watch(), 1000);

		return E('div', { 'class': 'cbi-map' }, [
			E('h2', {}, [ _('VPN Kill Switch') ]), this.banner, this.details
		]);
	},

	// The page's fixed parts. What is polled goes into them; what can be chosen stays the same
	// node, so that polling takes nothing out of anybody's hands.
	compose() {
		const locked = this.readonly ? '' : null;
		const act = handler => ui.createHandlerFn(this, handler);

		this.banner = E('div', { 'role': 'status' });
		this.connection = E('div');
		this.faults = E('div');
		this.blocked = E('div');
		this.networks = E('div');
		this.devices = E('div');
		this.events = E('div');
		this.activity = E('span');

		this.profile = E('select', {
			'id': 'portcullis-profile', 'class': 'cbi-input-select', 'disabled': locked,
			'change': () => { this.chosen = this.profile.value; this.enable(); }
		});
		this.connectButton = button('apply', _('Connect'), act('handleConnect'));
		this.disconnectButton = button('negative', _('Disconnect'), act('handleDisconnect'));
		this.pageButton = button('neutral', _('Open the web UI'), act('handlePage'));
		this.mode = layout.select([
			[ 'standard', _('Standard') ],
			[ 'at_all_times', _('Enable at all times') ]
		], null, { 'id': 'portcullis-mode', 'disabled': locked, 'change': act('handleMode') });
		this.lanAccess = layout.select([
			[ '1', _('Allowed') ],
			[ '0', _('Denied') ]
		], null, { 'id': 'portcullis-lan-access', 'disabled': locked, 'change': act('handleLanAccess') });

		this.details = E('div', {}, [
			this.faults,
			layout.section(_('Connection'), [
				layout.value(_('Profile'), [
					this.profile, ' ', this.connectButton, ' ', this.disconnectButton
				]),
				layout.value(_('Everything else'), [ this.pageButton ], _('Profiles, DNS, diagnostics and the history are in the web UI of Portcullis.')),
				this.connection
			]),
			layout.section(_('Kill switch'), [
				layout.value(_('Kill switch'), [
					E('div', { 'class': 'cbi-checkbox' }, [
						E('input', { 'type': 'checkbox', 'checked': '', 'disabled': '',
							'aria-label': _('Kill switch') }),
						E('span', { 'style': 'margin-left:.5em' }, [ _('On, and locked') ])
					])
				], _('On a router it is always enabled. Nothing turns it off.')),
				layout.value(_('Now'), [ this.activity ]),
				layout.value(_('Mode'), [ this.mode ], _('In standard mode your devices use the internet without the VPN while you are disconnected. Enabled at all times, they have no internet then.')),
				layout.value(_('Access to devices on the local network'), [ this.lanAccess ], _('Whether your devices may reach each other. Each one can be excepted below.'))
			]),
			layout.section(_('Devices'), [ this.devices ]),
			layout.section(_('Blocked so far'), [ this.blocked ]),
			layout.section(_('Protected networks'), [ this.networks ]),
			layout.section(_('Last events'), [ this.events ])
		]);

		for (const control of [ this.connectButton, this.disconnectButton, this.pageButton ])
			control.disabled = this.readonly;
	},

	refresh() {
		return daemon.status().then(status => this.show(status));
	},

	refreshLists() {
		return Promise.all([
			daemon.profiles().then(reply => this.showProfiles(reply)),
			daemon.devices().then(reply => this.showDevices(reply)),
			daemon.events().then(reply => this.showEvents(reply))
		]);
	},

	// Polling can be paused, and a request can hang: time alone must turn the page around.
	watch() {
		if (this.status.ok && Date.now() - this.heard > STALE)
			this.show({
				ok: false, code: 'stale',
				reason: poll.active()
					? _('The router does not answer.')
					: _('Refreshing is paused.')
			});
	},

	show(status) {
		const [ style, headline ] = words.headline(status);

		this.status = status;
		this.details.style.display = status.ok ? '' : 'none';
		layout.update(this.banner, [
			style, headline,
			...status.ok ? words.row(status) : [ status.reason ],
			status.ok && status.reason && status.state != 'connected'
				? _('Reason: %s').format(status.reason) : ''
		], ([ colour, sentence, ...more ]) => [
			E('div', { 'class': 'alert-message ' + colour }, [
				E('h4', { 'style': 'font-size:150%' }, [ sentence ]),
				...more.filter(text => text).map(text => E('p', {}, [ text ]))
			])
		]);

		if (!status.ok)
			return;

		this.heard = Date.now();
		this.showConnection(status);
		this.showBlock(status);
		this.enable();
	},

	showConnection(status) {
		const rows = [
			[ _('State'), _('%s since %s').format(words.state(status.state), words.clock(status.since)) ],
			[ _('Server'), status.endpoints?.join(', ') ],
			[ _('Handshake'), words.handshake(status.tunnel) ],
			[ _('Transfer'), words.transfer(status.tunnel) ],
			[ _('Attempt'), words.attempt(status.tunnel) ],
			[ _('Resolvers'), status.resolvers?.join(', ') ],
			...(status.tunnel?.notes ?? []).map(note => [ _('Note'), note ])
		].filter(([ , text ]) => text);

		layout.update(this.connection, rows, () => [ layout.facts(rows) ]);
	},

	showBlock(status) {
		layout.update(this.activity, [
			words.activity(status.kill_switch),
			status.restored ? _('changes by others that were undone: %d').format(status.restored) : ''
		].filter(text => text).join('; '), text => [ text ]);
		layout.update(this.faults, status.faults ?? [], faults => faults.map(fault => {
			return E('div', { 'class': 'alert-message danger' }, [ E('p', {}, [ fault ]) ]);
		}));
		layout.update(this.blocked, words.blocked(status.blocked), rows => [
			layout.table([ _('What'), _('Packets') ], rows, _('Nothing yet.'))
		]);
		layout.update(this.networks, status.networks ?? [], networks => [
			layout.table(
				[ _('Network'), _('Device'), _('Addresses') ],
				networks.map(n => [ n.name, n.device, n.prefixes.join(', ') ]),
				_('None: no network was found that this router serves.')
			)
		]);
		this.adopt(this.mode, status.kill_switch.mode);
		this.adopt(this.lanAccess, status.lan_access ? '1' : '0');
	},

	// Shows what holds, but not in the hands of someone who is choosing.
	adopt(control, value) {
		if (document.activeElement !== control && !control.classList.contains('spinning'))
			control.value = value;
	},

	showProfiles(reply) {
		if (!reply.ok)
			return;

		layout.update(this.profile, reply.profiles, profiles => profiles.map(profile => {
			const problem = profile.usable ? '' : ' (' + _('unusable: %s').format(profile.problem) + ')';

			return E('option', {
				'value': profile.name, 'disabled': profile.usable ? null : ''
			}, [ profile.name + problem ]);
		}));
		this.enable();
	},

	showDevices(reply) {
		if (!reply.ok)
			return this.showReason(this.devices, reply);

		if (this.devices.contains(document.activeElement))
			return;

		layout.update(this.devices, reply.devices, devices => [
			layout.table(
				[ _('Device'), _('Addresses'), _('MAC'), _('Network'), _('Online'), _('Local access') ],
				devices.map(device => [
					device.hostname || '?', [ ...device.ipv4, ...device.ipv6 ].join(', '), device.mac,
					device.network, device.online ? _('yes') : _('no'), this.access(device)
				]),
				_('No device has been seen yet.')
			)
		]);
	},

	access(device) {
		const control = layout.select(ACCESS, device.access, {
			'disabled': this.readonly ? '' : null,
			'aria-label': _('Local access of %s').format(device.hostname || device.mac),
			'change': ui.createHandlerFn(this, 'handleAccess', device)
		});

		// What the hardware cannot enforce.
		return E('div', {}, [ control, E('div', {}, [ device.note ]) ]);
	},

	showEvents(reply) {
		if (!reply.ok)
			return this.showReason(this.events, reply);

		layout.update(this.events, reply.events.slice(0, EVENTS), events => [
			layout.table(
				[ _('Time'), _('State'), _('Kill switch'), _('Reason') ],
				events.map(event => [
					words.clock(event.time), words.state(event.state),
					event.kill_switch_active ? _('active') : _('inactive'), event.reason
				]),
				_('None since the daemon started.')
			)
		]);
	},

	showReason(node, reply) {
		layout.update(node, reply.reason, reason => [ E('em', {}, [ reason ]) ]);
	},

	// What can be done now. Called after each reply and each command.
	enable() {
		const status = this.status;
		const wanted = this.chosen ?? status.profile;

		if ([ ...this.profile.options ].some(option => option.value === wanted))
			this.profile.value = wanted;

		const there = status.state == 'connected' && this.profile.value == status.profile;

		this.connectButton.disabled = this.readonly || there || !this.profile.value;
		this.disconnectButton.disabled = this.readonly || status.intent == 'disconnected';
	},

	// Carries a command out and shows what came of it.
	carryOut(command) {
		return command.then(reply => {
			complain(reply);

			return Promise.all([ this.refresh(), this.refreshLists() ]).then(() => reply);
		});
	},

	handleConnect() {
		const name = this.profile.value;

		this.chosen = null;

		return this.carryOut(daemon.connect(name)).finally(() => window.setTimeout(() => this.enable()));
	},

	async handleDisconnect() {
		if (this.status.kill_switch.mode != 'at_all_times' && !await confirmed(
			_('Once disconnected, your devices use the internet without the VPN.'), _('Disconnect')))
			return;

		await this.carryOut(daemon.disconnect());
		window.setTimeout(() => this.enable());
	},

	async handleMode() {
		const wanted = this.mode.value;

		if (wanted == 'standard' && this.status.intent == 'disconnected' && !await confirmed(
			_('In standard mode your devices use the internet without the VPN at once, since you are disconnected.'),
			_('Set standard mode'))) {
			this.mode.value = this.status.kill_switch.mode;
			return;
		}

		await this.carryOut(daemon.set('mode', wanted));
		this.mode.value = this.status.kill_switch?.mode ?? this.mode.value;
	},

	async handleLanAccess() {
		await this.carryOut(daemon.set('lan_access', this.lanAccess.value));
		this.lanAccess.value = this.status.lan_access ? '1' : '0';
	},

	async handleAccess(device, ev) {
		const reply = await this.carryOut(daemon.set_device(device.mac, ev.target.value));

		if (!reply.ok)
			ev.target.value = device.access;
	},

	// The window is opened at the click, or the browser takes it for an advertisement. What
	// stands after # is sent nowhere and logged nowhere.
	async handlePage() {
		const page = window.open('about:blank');
		const reply = complain(await daemon.token());

		if (!reply.ok || !page) {
			page?.close();
			this.pageButton.closest('.cbi-value').style.display = reply.ok ? '' : 'none';
			return;
		}

		page.opener = null;
		page.location = '%s://%s:%d/#token=%s'.format(
			reply.tls ? 'https' : 'http', window.location.hostname, reply.port,
			encodeURIComponent(reply.token));
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
