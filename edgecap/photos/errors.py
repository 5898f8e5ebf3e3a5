"""What can be wrong with a folder of photographs, its side-cars or its index."""

from edgecap.runtime.errors import EdgeCapError


class LibraryError(EdgeCapError):
    """A folder, a side-car, an index or a file to write cannot be used."""


class OutputError(LibraryError):
    """The one file that everything goes to cannot be written: there is no going on."""
