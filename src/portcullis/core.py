# SPDX-License-Identifier: GPL-2.0-or-later
"""The core: holds the state, and makes the kernel what the state's policy says.

Everything comes through two doors. `happen` takes an event of the state table: new state, its
policy into the kernel, only then what the tunnel has to do about it. `enforce` reconciles the
kernel with the present policy; start-up, tampering and recovery use it alike.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from portcullis import intent, lines, networks, openwrt, profiles, settings, uplink
from portcullis.alarms import Alarm, Alarms
from portcullis.attachment import Outside
from portcullis.block import FILTER, GUARD, HOOK, Block
from portcullis.boot import Boot
from portcullis.bus import Bus, BusError
from portcullis.catalogue import Catalogue
from portcullis.clock import Clock, Moment
from portcullis.driver import Driver
from portcullis.faults import Faults
from portcullis.history import History, Transition
from portcullis.integration import Integration
from portcullis.intent import Intent
from portcullis.lan import LanAccess
from portcullis.loop import Deferred, Loop, Pace, Timer
from portcullis.netlink import NetlinkError
from portcullis.networks import Corrections, Surroundings
from portcullis.paths import Paths
from portcullis.policy import Network, Outer, Policy, at_home, decide
from portcullis.selftest.process import SelfTest
from portcullis.settings import CLOSED, Settings
from portcullis.states import Action, Event, State, active, transition
from portcullis.traffic import SAMPLE, Traffic
from portcullis.tunnel import Tunnel
from portcullis.uplink import Uplink
from portcullis.watch import NOTHING_SAID, Change

log = logging.getLogger("portcullis")

_REPAIR_AFTER, _REPAIR_SELDOM = 1.0, 10.0
_SAVE_AFTER = 5.0
_PAUSE_MOST = 300.0  # each try writes to a flash that may be full
_SETTLE = 0.02
_REREAD_AFTER = 0.2
_BURST = 0.5  # seconds that may be looked around at a stretch, however much happens


class Core:
    def __init__(
        self,
        loop: Loop,
        bus: Bus,
        driver: Driver,
        paths: Paths,
        on_transition: Callable[[State, State, str], None],
        on_alarm: Callable[[Alarm], None],
    ) -> None:
        self._loop, self.bus, self._paths = loop, bus, paths
        self._on_transition = on_transition
        self._repair = Deferred(loop, self._repair_now)
        self._reread = Deferred(loop, self._reread_now)
        self._recovery = Deferred(loop, self._recover_now)
        self._look = Deferred(loop, self._look_now)
        self._remembering = Deferred(loop, self._remember_again)
        self._forgetting = Deferred(loop, self._drop_dns_cache)
        self._pause, self._patience = _SAVE_AFTER, _REPAIR_AFTER
        self._pace = Pace(_BURST)
        self._enforced: tuple[Policy, Outside] | None = None
        self._started = self._block_failed = False
        self.told = False  # by netifd and fw4, which networks there are
        self._unsaved: dict[str, Timer] = {}
        self.driver = driver
        self.clock = Clock(paths.clock, paths.clock_now)
        self.tunnel = Tunnel(loop, self.driver, self, paths.profiles, paths.endpoints, self.clock)
        self.state = State.NOT_CONNECTED
        self.since = Moment.now()
        self.reason = ""
        self.intent = Intent(False)
        self.settings = CLOSED
        self.uplink = Uplink()
        self._families_told: frozenset[int] = frozenset()
        self.surroundings = Surroundings()
        self._outer: tuple[Outer, ...] = ()
        self.faults = Faults()
        self.alarms = Alarms(loop, on_alarm)
        self.block = Block(paths.run, self.faults, self.alarms.restored_what)
        self.history = History()
        self.traffic = Traffic()
        self.catalogue = Catalogue(paths.profiles, loop.after)
        self._integration = Integration(loop, bus, self.faults, paths.share)
        self._boot = Boot(loop, paths.boot, paths.boot_lan)
        self.lan = LanAccess(
            loop, bus, self.faults, paths.run, self.enforce, self.alarms.restored_what
        )
        self._lan_known = False
        self.selftest = SelfTest(loop, bus.send)

    @property
    def profiles_folder(self) -> Path:
        return self._paths.profiles

    # What the tunnel asks for.

    @property
    def networks(self) -> tuple[Network, ...]:
        return self.surroundings.networks

    @property
    def families(self) -> frozenset[int]:
        return self.uplink.families

    @property
    def own_addresses(self) -> tuple[str, ...]:
        return self.uplink.addresses

    # Start and end.

    def start(self) -> None:
        """Take up the remembered intent, closed until the settings have been read.

        Closed comes before anything that may take long, such as asking services that hang.
        Only where the owner is disconnected and a table stands, what stands may wait for the
        settings: it is the last policy, and a restart must not cut the house off.
        """
        unsaved = self._paths.unsaved.exists()  # an earlier process could not save it
        newest = self._paths.unsaved if unsaved else self._paths.intent
        self.intent, wrong = intent.read(newest, (self._paths.endpoints,))
        if unsaved and not wrong:
            self._remembering.within(self._pause)
        self.faults.note("intent", wrong)
        self.faults["settings"] = "not read yet: closed settings hold"
        self._read_uplink()
        try:
            remembered = networks.load(self._paths.networks.read_text(), self.uplink.gateways)
            self.surroundings = self.surroundings._replace(networks=remembered)
        except (OSError, ValueError) as error:
            log.info("no remembered networks: %s", error)
        self._families_told = self.uplink.families
        self._started = self.intent.connected or not self.block.stands()
        if self.intent.connected:
            self.happen(Event.START_CONNECTED, "the daemon started, you had connected before")
        else:
            self.happen(Event.START_DISCONNECTED, "")
        self.bus.connect()
        self._started = self._lan_known = True
        self.kernel_changed()
        self._sample()

    def shutdown(self) -> None:
        """End without lifting anything: the filter, the guard and the intent stay."""
        self.happen(Event.SHUTDOWN, "")
        self.selftest.close()
        self.tunnel.close()
        self.alarms.close()
        self.clock.close()
        self._integration.close()
        self.lan.close()
        self.bus.close()

    # Events.

    def happen(self, event: Event, reason: str) -> None:
        """Go through the state table with `event`; `reason` is for people. Never raises: what is
        broken half-way must not leave a state whose action nobody takes."""
        try:
            self._go_through(event, reason)
        except Exception as error:
            self.recover(error)

    def _go_through(self, event: Event, reason: str) -> None:
        old = self.state
        self.state, action = transition(old, event)
        armed = self._apply()
        if self.state is not old or event is Event.BLOCK_FAILED:
            self.reason = reason
        if self.state is not old:
            self.since = Moment.now()
            blocks = active(self.state, self.settings.mode)
            self.history.note(Transition(self.since, old, self.state, reason, blocks))
            log.info("%s -> %s%s", old.value, self.state.value, f": {reason}" if reason else "")
            self._on_transition(old, self.state, reason)
        if armed or action is not Action.START:
            self._act(action, event)
        if not armed:
            self._block_fails()

    def enforce(self) -> bool:
        """Make the kernel what the policy says; whether the block, if active, is verified."""
        armed = self._apply()
        if not armed:
            self._block_fails()
        return armed

    def recover(self, error: Exception) -> None:
        """Something of ours is broken: say so, check the block, and set the tunnel up anew."""
        log.error("internal error", exc_info=error)
        self.faults.note("internal error", repr(error))
        self._recovery.within(_REPAIR_AFTER)

    def _recover_now(self) -> None:
        self._read_uplink()  # the look that would have told of it may be what was broken
        self._families_told = self.uplink.families
        # So may the choice of a profile: begin with the owner's, not with the last one.
        going = self.state in (State.NOT_CONNECTED, State.DISCONNECTING)
        event = Event.TUNNEL_LOST if going else Event.SETTINGS_CHANGED
        self._go_through(event, "after an internal error")  # or the loop has us try again
        self.faults.note("internal error", None)

    def _block_fails(self) -> None:
        trying = (State.CONNECTING, State.CONNECTED, State.RECONNECTING)
        if not self._block_failed or self.state in trying:
            self._block_failed = True
            self.happen(Event.BLOCK_FAILED, self.faults[FILTER])

    def _act(self, action: Action, event: Event) -> None:
        if action is Action.STOP:
            self.tunnel.stop()
        elif action is Action.START and event is Event.RETRY:
            self.tunnel.retry(self.order(event))
        elif action is Action.START:
            self.tunnel.start(self.order(event))

    def order(self, event: Event) -> tuple[str, ...]:
        """Profiles to try: the owner's choice, then the fallbacks. What worked a moment ago is
        tried first after a loss."""
        known = profiles.names(self._paths.profiles)
        chosen = (self.intent.profile,) if self.intent.profile else self.settings.profiles[:1]
        order = (*(chosen or known[:1]), *self.settings.profiles)
        if event is Event.TUNNEL_LOST and self.tunnel.profile:
            order = (self.tunnel.profile.name, *order)
        return tuple(dict.fromkeys(order))

    # What the owner wants (`commands`).

    def reload(self) -> None:
        """Read the settings and the networks again; somebody says they have changed."""
        self._read_settings()
        self._read_surroundings()
        self.lan.reload()

    def remember(self, wanted: Intent) -> str | None:
        """Keep the intent before it is acted on; a warning where it cannot be kept."""
        self.intent = wanted
        with suppress(OSError):  # it only bridges the time until the lasting file is written
            intent.save(self._paths.unsaved, wanted)
        try:
            intent.save(self._paths.intent, wanted)
            self._paths.unsaved.unlink(missing_ok=True)
        except OSError as error:
            word = "connected" if wanted.connected else "disconnected"
            warning = f"the intent {word} cannot be saved, it holds until reboot: {error.strerror}"
            self.faults.note("intent", warning)
            self._remembering.within(self._pause)
            self._pause = min(2 * self._pause, _PAUSE_MOST)
            return warning
        self._remembering.cancel()
        self._pause = _SAVE_AFTER
        self.faults.note("intent", None)
        return None

    def _remember_again(self) -> None:
        self.remember(self.intent)

    def change(self, wanted: Settings, option: str) -> str:
        """Put a changed setting into force, then save it; a warning where it is not saved yet."""
        self._adopt(wanted, ())
        if option in settings.NETWORKS:
            self._read_surroundings()
        return self._save(option)

    # Settings and surroundings.

    def bus_up(self) -> None:
        """ubus is there (again)."""
        try:
            self.reload()
        except Exception as error:  # ended by it, the next start would end in the same way
            self.recover(error)

    def network_changed(self, _event: dict[str, Any]) -> None:
        """netifd says that an interface went up or down: read once for a burst of events."""
        self._reread.within(_SETTLE)

    def _reread_now(self) -> None:
        if self.bus.up:
            self.reload()

    def _read_settings(self) -> None:
        try:
            found, problems = openwrt.read_settings(self.bus)
        except BusError as error:
            self.faults.note("settings", f"not read: {error}")
            self._reread.within(_SAVE_AFTER)
            return
        if found is CLOSED:  # nobody tells us when the file is there again
            self._reread.within(_SAVE_AFTER)
        wishes = {option: getattr(self.settings, option) for option in self._unsaved}
        self._adopt(found._replace(**wishes), problems)

    def _adopt(self, wanted: Settings, problems: tuple[str, ...]) -> None:
        former, self.settings = self.settings, wanted
        self.faults.note("settings", "; ".join(problems) or None)
        reconnects = any(getattr(former, o) != getattr(wanted, o) for o in settings.TUNNEL)
        if reconnects:
            self.happen(Event.SETTINGS_CHANGED, "settings changed")
        else:
            self.enforce()

    def _save(self, option: str) -> str:
        if timer := self._unsaved.pop(option, None):
            timer.cancel()
        try:
            openwrt.save_setting(self.bus, self.settings, option)
        except (BusError, openwrt.ForeignChangesError) as error:
            warning = f"in force, but not saved yet: {error}"
            self.faults.note(f"{option} unsaved", warning)
            self._unsaved[option] = self._loop.after(_SAVE_AFTER, lambda: self._save_again(option))
            return warning
        self.faults.note(f"{option} unsaved", None)
        return ""

    def _save_again(self, option: str) -> None:
        self._save(option)

    @property
    def _corrections(self) -> Corrections:
        return Corrections(self.settings.protected_networks, self.settings.internet_networks)

    def _read_surroundings(self) -> None:
        try:
            found = openwrt.read_surroundings(self.bus, self.uplink.gateways, self._corrections)
        except BusError as error:
            self.faults.note("networks", f"not read, the last known ones hold: {error}")
            self._reread.within(_SAVE_AFTER)
            return
        self.told = True
        notes = found.notes
        if not (found.networks or notes):
            notes = ("no network is protected: no zone is known to forward to the internet",)
        self.faults.note("networks", "; ".join(notes) or None)
        self._integration.surroundings_read(found.zones, dict(found.interfaces))
        if found == self.surroundings:
            return
        self.surroundings = found
        self.block.hardware_offload_wanted = found.hardware_offload
        self._boot.keep(self._paths.networks, networks.dump(found.networks))
        self._hold_lines()
        link = self.tunnel.link
        if link and at_home((*link.addresses, *link.resolvers), (*self.networks, *self.served)):
            self.happen(Event.SETTINGS_CHANGED, "the tunnel has an address of our networks")
        else:
            self.enforce()
        self.kernel_changed()  # what counts as upstream may have changed with it

    def _sample(self) -> None:
        self._loop.after(SAMPLE, self._sample)  # first: one sample that fails is not the last
        self.note_traffic()

    def note_traffic(self) -> None:
        reading = self.driver.reading() if self.tunnel.link else None
        through = {"received": reading.received, "sent": reading.sent} if reading else {}
        self.traffic.note(time.monotonic(), {**self.block.counters(), **through})

    # The kernel.

    def kernel_changed(self, change: Change = NOTHING_SAID) -> None:
        """Rules, links, addresses or routes changed: look once for a burst of changes, and in the
        long run for half of the time at most."""
        self.alarms.suspect(change.by)
        self.block.changed_by_others(change)
        if change.zones:  # a `service firewall reload` by hand is told to nobody
            self._reread.within(_REREAD_AFTER)
        self._look.within(self._pace.wait())

    def _look_now(self) -> None:
        with self._pace:
            self._look_around()

    def _look_around(self) -> None:
        self.enforce()  # before all that takes longer: what is open is to be closed at once (K10)
        self.alarms.acquit()
        former = self.uplink
        self._read_uplink()
        # netifd's event tells of up and down, and of no prefix that was delegated since.
        if former.gateways != self.uplink.gateways or former.addresses != self.uplink.addresses:
            self._read_surroundings()
        self._hold_lines()
        if self._enforced != (self.policy(), self._outside()):
            self.enforce()
        self.tunnel.check()
        self._integration.attach()
        told, self._families_told = self._families_told, self.uplink.families
        if told and not self.uplink.families:
            self.happen(Event.WAN_LOST, "the way to the internet is gone")
        elif self.uplink.families - told:
            self.happen(Event.WAN_BACK, "the way to the internet is back")

    def _read_uplink(self) -> None:
        try:
            self.uplink = uplink.read(tuple(network.device for network in self.networks))
        except (NetlinkError, OSError) as error:
            self.faults.note("uplink", str(error))
            self._look.within(_REPAIR_AFTER)
        else:
            self.faults.note("uplink", None)

    def _hold_lines(self) -> None:
        try:
            found = lines.hold(self.surroundings.lines)
        except OSError as error:
            self.faults.note("line", f"what carries the line to the internet is blocked: {error}")
            self._outer = ()
            self._look.within(_REPAIR_AFTER)
            return
        self._outer, objections = lines.sound(found, self.networks, self.uplink.addresses)
        self.faults.note("line", "; ".join(objections) or None)

    def policy(self) -> Policy:
        return decide(
            self.state,
            self.settings.mode,
            self.settings.lan_access,
            self.networks,
            self.tunnel.link,
            self.tunnel.endpoints,
            self.tunnel.bootstrap,
            self.served,
            self.lan.lan,
            self._outer,
            at_home(self.settings.dns, self.networks),
        )

    @property
    def upstream(self) -> tuple[str, ...]:
        """Devices that lead to the internet."""
        return tuple(dict.fromkeys((*self.surroundings.upstream, *self.uplink.gateways)))

    @property
    def served(self) -> tuple[Network, ...]:
        """Networks that are answered without being protected (K14). The kernel's own word
        counts where nothing is known of the house, or what is known makes no sense."""
        known = self.surroundings.served
        devices = {network.device for network in known}
        house = [n for n in self.uplink.house if n.device in devices or not self.networks]
        return tuple(dict.fromkeys((*known, *house)))

    def managing_devices(self) -> tuple[str, ...]:
        """Devices of the networks from which the router may be managed."""
        house = () if self.networks else tuple(network.device for network in self.uplink.house)
        return self.surroundings.managing or house

    def _apply(self) -> bool:
        """The policy into the kernel; whether the block, if active, is verified."""
        if not self._started:
            return True
        policy, outside = self._enforced = self.policy(), self._outside()
        applied = self.block.apply(policy, outside)
        self.selftest.policy_changed(active=not policy.released)
        flipped = applied.flipped
        # Devices among themselves come second, and not before it is known what the owner wants.
        if self._lan_known and self.lan.apply(self.settings.lan_access, self.networks):
            policy, outside = self._enforced = self.policy(), self._outside()
            applied = self.block.apply(policy, outside)
            flipped = flipped or applied.flipped
        if self.bus.up:  # before that the settings and networks are not known to be the owner's
            self._boot.prepare(policy, self._lan_known)
        if applied.whole:
            self._patience = _REPAIR_AFTER
        else:
            self._repair.within(self._repair_wait())
        if flipped:
            self._forgetting.within(0)
        return applied.armed

    def _outside(self) -> Outside:
        present = uplink.still_there(self.uplink.netdevs)
        doubtful = () if self.told else self.uplink.private
        pppoe, gateways = self.surroundings.pppoe, self.uplink.gateways
        return Outside(self.upstream, pppoe, present, doubtful, gateways)

    def _repair_wait(self) -> float:
        """A layer is tried again soon. What else is wrong, with every layer in order, may be so for
        ever (no kmod-nf-conntrack-netlink), and to look is work: more and more seldom."""
        layers = {FILTER, GUARD, HOOK} & self.faults.keys()
        return _REPAIR_AFTER if layers else self._patience

    def _repair_now(self) -> None:
        self._patience = min(2 * self._patience, _REPAIR_SELDOM)
        if self.enforce() and self._block_failed:
            self._block_failed = False
            self.happen(Event.RETRY, "the block is verified again")

    def _drop_dns_cache(self) -> None:
        try:
            openwrt.drop_dns_cache(self.bus)
        except BusError as error:
            self.faults.note("DNS cache", f"dnsmasq keeps what it knows: {error}")
            self._forgetting.within(_SAVE_AFTER)
        else:
            self.faults.note("DNS cache", None)
