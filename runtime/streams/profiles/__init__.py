"""Profiles: presets of a stream that a person can read and override."""

from edgecap.runtime.streams.profiles.profile import Profile
from edgecap.runtime.streams.profiles.reading import load_profile, names, source_of

__all__ = ["Profile", "load_profile", "names", "source_of"]
