# SPDX-License-Identifier: GPL-2.0-or-later
"""The tunnel's attempts: which profile, which address, when again, and whether it still lives.

Runs in the core's loop and tells it what happened by events of the state table; it decides no
state and opens nothing. What policy has to know of the tunnel stands in `link`, `endpoints` and
`bootstrap`, and whenever those change the core is asked to put the policy in force *before*
anything is sent.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, Protocol

from portcullis import profiles
from portcullis.clock import Clock
from portcullis.dns import unfit
from portcullis.driver import Driver, DriverError, Reading
from portcullis.health import HANDSHAKE_OCTETS, Advice, Health
from portcullis.loop import Loop, Timer
from portcullis.policy import Link, Network, Socket, at_home, endpoint_objection, within
from portcullis.probe import Prober
from portcullis.profile import Profile, carried, routes
from portcullis.resolver import Lookup
from portcullis.settings import Settings
from portcullis.states import Event
from portcullis.storage import write_durably

_TRIES_FOR_DATA = 2
_TAKE_DOWN_AGAIN = 5.0


class Pace(NamedTuple):
    """Seconds, and numbers of tries. A lost path that comes back without telling is found
    within `window`; after the first round the waits grow, with jitter, for ever."""

    window: float = 2.0  # for one handshake
    tries: int = 10  # of the first profile in the first round
    tries_later: int = 3  # of each other one, and in later rounds
    wait: float = 3.0  # between rounds, doubled each time
    wait_most: float = 30.0
    poll: float = 0.05
    poll_waiting: float = 1.0


class Surrounding(Protocol):
    """What the core knows and the tunnel asks for."""

    @property
    def settings(self) -> Settings: ...

    @property
    def networks(self) -> tuple[Network, ...]: ...

    @property
    def served(self) -> tuple[Network, ...]: ...

    @property
    def families(self) -> frozenset[int]: ...

    @property
    def own_addresses(self) -> tuple[str, ...]: ...

    def enforce(self) -> bool: ...

    def happen(self, event: Event, reason: str) -> None: ...


class UnusableError(Exception):
    """A profile that cannot work here; says why."""


class Tunnel:
    def __init__(
        self,
        loop: Loop,
        driver: Driver,
        core: Surrounding,
        folder: Path,
        cache: Path,
        clock: Clock,
        pace: Pace | None = None,
    ) -> None:
        self._loop, self._driver, self._core = loop, driver, core
        self._folder, self._cache, self._pace = folder, cache, pace or Pace()
        self._clock = clock
        self._prober = Prober()
        self._timer: Timer | None = None
        self._lookup: Lookup | None = None
        self._health: Health | None = None
        self._order: tuple[str, ...] = ()
        self._dialled = self._doubted = False
        self._position = self._tries = self._rounds = 0
        self._problems: dict[str, str] = {}
        self._resolved: dict[str, tuple[str, ...]] = {}
        self._remembered = _read_cache(cache)
        self.profile: Profile | None = None
        self.link: Link | None = None
        self.endpoints: tuple[Socket, ...] = ()
        self.bootstrap: tuple[Socket, ...] = ()
        self.attempt = 0
        self.next_attempt_at: float | None = None  # monotonic seconds
        self.notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The profile that is being tried, or is up; empty where there is none."""
        if self.attempt and self._position < len(self._order):
            return self._order[self._position]
        return self.profile.name if self.profile else ""

    def start(self, order: tuple[str, ...]) -> None:
        """Begin afresh with the first profile of `order`; the others are its fallbacks."""
        self._rounds = 0
        self.attempt = 0
        self._begin_round(order)

    def retry(self, order: tuple[str, ...]) -> None:
        """Begin another round after a failed one."""
        self._begin_round(order)

    def stop(self) -> None:
        """Take the tunnel down; tells of it by `tunnel_down`, in a later turn of the loop."""
        self._rest()
        self.attempt = 0
        failure = self._take_down()
        self._later(0, lambda: self._taken_down(failure))  # unless somebody connects before

    def close(self) -> None:
        """Stop doing anything, and leave the device as it is."""
        self._rest()

    def renamed(self, name: str, new_name: str) -> None:
        """A profile has another name now; the tunnel goes on."""
        self._order = tuple(new_name if known == name else known for known in self._order)
        if self.profile is not None and self.profile.name == name:
            self.profile = self.profile._replace(name=new_name)

    def check(self) -> None:
        """Look at the device now: something about links has changed."""
        if self._health is not None and self._driver.reading() is None:
            self._lost("the tunnel's device is gone")

    def _take_down(self) -> str:
        """Nothing is up, pinned or asked any more; what went wrong, or empty."""
        self.profile, self.link, self.endpoints, self.bootstrap = None, None, (), ()
        try:
            self._driver.stop()
        except Exception as error:  # whatever it is, it is tried again
            return str(error) or repr(error)
        return ""

    def _taken_down(self, failure: str) -> None:
        if failure:
            self._later(_TAKE_DOWN_AGAIN, self._take_down_again)
        self._core.happen(Event.DRIVER_FAILED if failure else Event.TUNNEL_DOWN, failure)

    def _take_down_again(self) -> None:
        """What could not be taken down, until it has gone or somebody connects."""
        if self._take_down():
            self._later(_TAKE_DOWN_AGAIN, self._take_down_again)

    def _begin_round(self, order: tuple[str, ...]) -> None:
        self._rest()
        self._order, self._position, self._tries = order, 0, 0
        self._problems, self._resolved = {}, {}
        self._dialled = False
        self._attempt()

    def _rest(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._lookup:
            self._lookup.cancel()
            self.bootstrap = ()
        self._timer = self._lookup = self._health = None
        self.next_attempt_at = None
        self._prober.close()

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.after(seconds, callback)

    def _attempt(self) -> None:
        if self._position >= len(self._order):
            self._exhausted()
            return
        if not self._core.families:
            self.next_attempt_at = None
            return  # no way to the internet: its return starts us again
        self.attempt += 1
        name = self._order[self._position]
        try:
            profile = profiles.load(self._folder, name)
        except profiles.NoProfileError as error:
            self._skip(name, str(error))
            return
        unknown = [
            peer.endpoint[0]
            for peer in profile.peers
            if peer.endpoint
            and not _literal(peer.endpoint[0])
            and not self._known(peer.endpoint[0])
        ]
        if not unknown:
            self._connect(profile)
            return
        self.bootstrap = self._core.settings.bootstrap()
        if not self._core.enforce():
            return
        self._lookup = Lookup(
            self._loop,
            unknown[0],
            self.bootstrap,
            self._core.families,
            lambda found, reason: self._looked_up(name, unknown[0], found, reason),
        )

    def _known(self, host: str) -> bool:
        """A remembered address serves the first try; then the name is asked for again, since
        the server may have moved."""
        if host in self._resolved:
            return True
        found = self._remembered.get(host, ())
        return self._tries == 0 and any(self._fits(address) for address in found)

    def _fits(self, address: str) -> bool:
        """Whether a remembered address can be tried at all where we are now."""
        version = 6 if ":" in address else 4
        own = self._core.own_addresses
        return version in self._core.families and not endpoint_objection(
            address, self._core.networks, own
        )

    def _looked_up(self, name: str, host: str, found: tuple[str, ...], reason: str) -> None:
        self._lookup = None
        self.bootstrap = ()
        if not self._core.enforce():
            return
        found = found or self._remembered.get(host, ())
        if found:
            self._resolved[host] = found
            self.attempt -= 1
            self._attempt()
        else:
            self._problems[name] = f"profile {name}: the address of {host} is not known: {reason}"
            self._tried(wait=0.0)

    def _connect(self, profile: Profile) -> None:
        try:
            peers = tuple(self._endpoint(profile, peer.endpoint) for peer in profile.peers)
            link = self._link(profile)
        except UnusableError as error:
            self._skip(profile.name, f"profile {profile.name}: {error}")
            return
        if self.profile is not None and self.profile != profile:
            self._take_down()  # nothing of the next profile goes through the former's tunnel
        self.profile, self.link = profile, link
        self.endpoints = tuple(dict.fromkeys(peer for peer in peers if peer))
        self._dialled = True
        if not self._core.enforce():
            return
        try:
            self._driver.start(profile, peers)
        except DriverError as error:
            self._problems[profile.name] = str(error)
            if error.curable:
                self._tried(wait=self._pace.window)
            else:
                self._core.happen(Event.DRIVER_FAILED, str(error))
            return
        if not self._core.enforce():  # now that the device is there, routes into it can be
            return
        self._core.happen(Event.TUNNEL_UP, "")
        self._prober.send(self._probed())
        deadline = time.monotonic() + self._pace.window
        self._later(self._pace.poll, lambda: self._await_handshake(deadline))

    def _endpoint(self, profile: Profile, endpoint: tuple[str, int] | None) -> Socket | None:
        if endpoint is None:
            return None
        host, port = endpoint
        candidates = (host,) if _literal(host) else self._addresses(host)
        own = (*self._core.own_addresses, *(str(address.ip) for address in profile.addresses))
        objections = []
        fit = []
        for address in candidates:
            objection = endpoint_objection(address, self._core.networks, own)
            if objection:
                objections.append(objection)
            else:
                fit.append(address)
        if not fit:
            raise UnusableError(f"the server's address cannot be used: {'; '.join(objections)}")
        reachable = [a for a in fit if (6 if ":" in a else 4) in self._core.families]
        if not reachable:
            raise UnusableError(f"no way to {fit[0]}: the internet here has no such address family")
        return Socket(reachable[self._tries % len(reachable)], "udp", port)

    def _addresses(self, host: str) -> tuple[str, ...]:
        return self._resolved.get(host) or self._remembered[host]

    def _link(self, profile: Profile) -> Link:
        """What the profile carries. Raises UnusableError where DNS would have no way."""
        prefixes = tuple(map(str, (*routes(profile).ipv4, *routes(profile).ipv6)))
        addresses = tuple(str(address.ip) for address in profile.addresses)
        for network in (*self._core.networks, *self._core.served):
            for address in (*addresses, *profile.dns):
                if within(address, network.prefixes):
                    raise UnusableError(
                        f"{address} lies in the network {network.name} of the router's: one of the"
                        " two has to be renumbered"
                    )
        usable = self._resolvers(profile, prefixes)
        sentence = carried(profile).sentence
        self.notes = (sentence,) if sentence else ()
        return Link(addresses, usable, prefixes)

    def _resolvers(self, profile: Profile, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        """The resolvers in the tunnel. Raises UnusableError where there is none."""
        wanted = self._core.settings.dns
        chosen = at_home(wanted, self._core.networks)
        if own := set(chosen) & set(self._core.own_addresses):
            raise UnusableError(resolver_is_router(own.pop()))
        resolvers = tuple(address for address in wanted if address not in chosen) or profile.dns
        usable = tuple(resolver for resolver in resolvers if within(resolver, prefixes))
        if usable:
            return usable
        if resolvers:
            raise UnusableError("none of the resolvers can be reached through the tunnel")
        if chosen:
            reason = f"it names no DNS resolver that {chosen[0]} could ask in its turn"
            raise UnusableError(f"{reason}: add one to the setting dns")
        raise UnusableError("it names no DNS resolver, and the setting dns is empty")

    def _await_handshake(self, deadline: float) -> None:
        reading = self._driver.reading()
        if reading is None:
            self._lost("the tunnel's device is gone")
            return
        self._clock.shaken(reading.handshake)
        if reading.handshake and self._proven(reading, deadline):
            self._health = Health(time.monotonic(), reading)
            self._rounds = 0
            self._remember()
            self.attempt = 0
            self._later(self._health.next_poll(), self._watch)
            self._core.happen(Event.HANDSHAKE, "")
        elif time.monotonic() >= deadline:
            assert self.profile is not None
            server = self.endpoints[0] if self.endpoints else None
            where = f"{server.address} port {server.port}" if server else "its server"
            name = self.profile.name
            silent = "it shakes hands, but nothing comes back through the tunnel"
            answer = f"{where}: {silent}" if reading.handshake else f"no answer from {where}"
            self._problems[name] = f"profile {name}: {answer}"
            if not reading.handshake:
                self._clock.unanswered()
            self._tried(wait=0.0)
        else:
            self._later(self._pace.poll, lambda: self._await_handshake(deadline))

    def _proven(self, reading: Reading, deadline: float) -> bool:
        """Whether data has come through, not only a handshake and keepalives. A provider whose
        resolver answers no probe is believed after some tries, unless it has lost us before."""
        if reading.received > HANDSHAKE_OCTETS:
            self._doubted = False
            return True
        patient = self._tries >= _TRIES_FOR_DATA and time.monotonic() >= deadline
        return patient and not self._doubted

    def _watch(self) -> None:
        reading = self._driver.reading()
        if reading is None or self._health is None:
            self._lost("the tunnel's device is gone")
            return
        self._clock.shaken(reading.handshake)
        advice = self._health.observe(time.monotonic(), reading)
        if advice is Advice.DEAD:
            self._doubted = reading.handshake > 0
            self._lost("nothing comes back through the tunnel, the server does not answer")
            return
        if advice is Advice.HANDSHAKE:
            self._shake_hands()
        elif advice is Advice.PROBE:
            self._prober.send(self._probed())
        self._later(self._health.next_poll(), self._watch)

    def _shake_hands(self) -> None:
        assert self.profile is not None
        peers = iter(self.endpoints)
        try:
            self._driver.start(
                self.profile,
                tuple(next(peers, None) if p.endpoint else None for p in self.profile.peers),
            )
        except DriverError:
            return  # the next reading says that the device is gone
        self._prober.send(self._probed())

    def _probed(self) -> tuple[str, ...]:
        return self.link.resolvers if self.link else ()

    def _lost(self, reason: str) -> None:
        self._rest()
        self._core.happen(Event.TUNNEL_LOST, reason)

    def _tried(self, wait: float) -> None:
        """One try of the present profile is over, in vain; what took no time has to wait."""
        self._tries += 1
        first = self._rounds == 0 and self._position == 0
        if self._tries < (self._pace.tries if first else self._pace.tries_later):
            self._later(wait, self._attempt)
        else:
            self._next_profile()

    def _skip(self, name: str, reason: str) -> None:
        """The present profile cannot work, however often it is tried."""
        self._problems[name] = reason
        self._next_profile()

    def _next_profile(self) -> None:
        self._position += 1
        self._tries = 0
        self._later(0, self._attempt)

    def _exhausted(self) -> None:
        self._rounds += 1
        if not self._dialled:
            self._take_down()  # an earlier tunnel is none of these profiles'
        reason = "; ".join(self._problems.values()) or "there is no profile to connect with"
        wait = min(self._pace.wait * 2 ** (self._rounds - 1), self._pace.wait_most)
        wait *= random.uniform(0.75, 1.25)
        self.next_attempt_at = time.monotonic() + wait
        self._await_retry()
        self._core.happen(Event.EXHAUSTED, reason)

    def _await_retry(self) -> None:
        """Wait for the next round; meanwhile WireGuard itself may find its server again."""
        reading = self._driver.reading()
        if reading and reading.handshake and self.link:
            self.next_attempt_at = None
            self._await_handshake(time.monotonic())
            return
        left = (self.next_attempt_at or 0.0) - time.monotonic()
        if left <= 0:
            self.next_attempt_at = None
            self._core.happen(Event.RETRY, "")
        else:
            self._later(min(left, self._pace.poll_waiting), self._await_retry)

    def _remember(self) -> None:
        """Addresses that were proven to be the server's; a forged one is never kept. The file
        is also the trace of a connection, for the day the intent is lost: so it is written
        where the server has no name, too."""
        assert self.profile is not None
        proven = {socket.address for socket in self.endpoints}
        fresh = {
            host: tuple(sorted(found, key=lambda address: address not in proven))
            for host, found in self._resolved.items()
            if proven & set(found)
        }
        new = any(self._remembered.get(host) != found for host, found in fresh.items())
        if new or not self._cache.exists():
            self._remembered |= fresh
            try:
                write_durably(self._cache, json.dumps(self._remembered, indent=1) + "\n")
            except OSError:
                return  # asked for again next time; nothing is lost but a moment


def resolver_is_router(address: str) -> str:
    """Why the setting dns cannot name the router."""
    return (
        f"the setting dns names {address}, which is the router itself: it would ask itself. Leave"
        " dns empty: a resolver on the router is asked all the same, and asks the tunnel's"
    )


def _literal(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _read_cache(path: Path) -> dict[str, tuple[str, ...]]:
    """Addresses by host name; whatever else the file holds is as good as nothing."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8")).items()
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    found = {str(host): tuple(_fit_addresses(listed)) for host, listed in entries}
    return {host: addresses for host, addresses in found.items() if addresses}


def _fit_addresses(listed: object) -> Iterator[str]:
    for text in listed if isinstance(listed, list) else ():
        try:
            address = ip_address(text)
        except ValueError:
            continue
        if isinstance(text, str) and "%" not in text and not unfit(address):
            yield str(address)
