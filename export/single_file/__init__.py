"""One standard ONNX file that is a whole captioner: picture in, caption out.

``docs/single_file.md`` says what goes in and comes out and how to run it elsewhere.
"""

from edgecap.export.single_file.write import SingleFileOptions, write_single_file

__all__ = ["SingleFileOptions", "write_single_file"]
