"""``edgecap serve``: captions over HTTP, of pictures that are posted and of cameras that run."""
