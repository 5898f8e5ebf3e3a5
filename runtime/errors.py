"""Errors a user can act on: each message says what was given, what is accepted and what to do."""


class EdgeCapError(ValueError):
    """Base of every error that bad input causes. The command line prints it and exits with 2."""


class ImageError(EdgeCapError):
    """A picture cannot be read or has a wrong shape, dtype, size or value."""


class BundleError(EdgeCapError):
    """A model bundle is missing, damaged, unsafe or of a schema this version cannot read."""


class OptionsError(EdgeCapError):
    """A decoding, stream or load option is out of its range or contradicts another."""


class SourceError(EdgeCapError):
    """A stream source does not exist, cannot be opened or is of an unknown kind."""


class SinkError(EdgeCapError):
    """A sink of a stream does not exist, cannot be opened or is of an unknown kind."""


class DataError(EdgeCapError):
    """A data set is missing, damaged or not in the layout its name promises."""


class MissingExtraError(EdgeCapError):
    """A feature needs a package that the base install leaves out."""


class EngineError(EdgeCapError):
    """A TensorRT engine cannot be built, does not belong to this machine, or fails to run."""
