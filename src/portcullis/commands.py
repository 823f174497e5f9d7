# SPDX-License-Identifier: GPL-2.0-or-later
"""The owner's commands: what ubus, and with it every page and script, may ask of the core."""

from __future__ import annotations

from portcullis import profiles, settings
from portcullis.core import Core
from portcullis.intent import Intent
from portcullis.profiles import ProfileRefusedError
from portcullis.settings import SettingError
from portcullis.states import Event
from portcullis.tunnel import resolver_is_router


class Refusal(Exception):
    """A command that is not carried out; `code` is for programs, the text for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def connect(core: Core, profile: str) -> str | None:
    """The owner's connect, or change of profile; a warning where it could not be
    remembered. Raises Refusal."""
    name = profile or core.intent.profile
    order = (name,) if name else core.order(Event.CONNECT)
    if not order:
        raise Refusal("no_profile", f"There is no profile in {core.profiles_folder}.")
    try:
        profiles.load(core.profiles_folder, order[0])
    except profiles.NoProfileError as error:
        raise Refusal("bad_profile", f"Not connected: {error}.") from None
    present = core.tunnel.profile
    changes = present is not None and present.name != order[0]
    warning = core.remember(Intent(True, order[0]))
    core.happen(Event.CHANGE_PROFILE if changes else Event.CONNECT, "the owner connected")
    return warning


def disconnect(core: Core) -> str | None:
    """The owner's disconnect; a warning where it could not be remembered."""
    warning = core.remember(Intent(False, core.intent.profile))
    core.happen(Event.DISCONNECT, "the owner disconnected")
    return warning


def set_option(core: Core, name: str, value: str) -> str:
    """Change a setting; what to tell the owner beside "done". Raises Refusal."""
    try:
        wanted, option = settings.change(core.settings, name, value)
    except SettingError as error:
        raise Refusal(error.code, str(error)) from None
    if not option:
        return "The kill switch is enabled, as always."
    if own := option == "dns" and set(wanted.dns) & set(core.own_addresses):
        raise Refusal("invalid_value", f"Not set: {resolver_is_router(own.pop())}.")
    return core.change(wanted, option)


def import_profile(core: Core, name: str, text: str) -> None:
    """Keep a new profile. Raises ProfileRefusedError or OSError."""
    profiles.add(core.profiles_folder, name, text)


def rename_profile(core: Core, name: str, new_name: str) -> str | None:
    """Rename a profile, wherever it is named too; a warning where that cannot be saved.
    Raises ProfileRefusedError or OSError.

    It has both names meanwhile: whatever ends this half-way, what is named is there.
    """
    profiles.name_also(core.profiles_folder, name, new_name)
    warnings = []
    if core.intent.profile == name:
        warnings.append(core.remember(core.intent._replace(profile=new_name)))
    if name in core.settings.profiles:
        order = [new_name if n == name else n for n in core.settings.profiles]
        warnings.append(set_option(core, "profiles", " ".join(order)))
    core.tunnel.renamed(name, new_name)
    profiles.remove(core.profiles_folder, name)
    return next(filter(None, warnings), None)


def delete_profile(core: Core, name: str) -> None:
    """Forget a profile that is not in use. Raises ProfileRefusedError or OSError."""
    chosen = core.intent.profile if core.intent.connected else ""
    if name and name in (chosen, core.tunnel.profile and core.tunnel.profile.name):
        raise ProfileRefusedError(f"profile {name} is in use: connect to another one first")
    profiles.remove(core.profiles_folder, name)
    if name in core.settings.profiles:
        left = (n for n in core.settings.profiles if n != name)
        set_option(core, "profiles", " ".join(left))
