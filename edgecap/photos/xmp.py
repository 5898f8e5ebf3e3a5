"""Alternative texts in XMP: IPTC's AltTextAccessibility (IPTC Photo Metadata Standard 2021.1).

A side-car is parsed, the one property is set in it, and everything else stays as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecap.photos.errors import LibraryError
from edgecap.runtime.errors import MissingExtraError

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XMP_META = "adobe:ns:meta/"
IPTC = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
ALT_TEXT = f"{{{IPTC}}}AltTextAccessibility"
DEFAULT_LANGUAGE = "x-default"
MAX_BYTES = 32 << 20
_EMPTY = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
    b' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
    b'  <rdf:Description rdf:about=""/>\n'
    b" </rdf:RDF>\n"
    b"</x:xmpmeta>\n"
    b'<?xpacket end="w"?>\n'
)


def lxml_etree() -> Any:
    """The module lxml.etree. Raises ``MissingExtraError``."""
    try:
        from lxml import etree
    except ImportError:
        raise MissingExtraError(
            "side-cars (XMP) need the package 'lxml': pip install 'edgecap[photos]'"
        ) from None
    return etree


def read(path: Path) -> bytes:
    """The bytes of a side-car; an empty packet where there is none. Raises ``LibraryError``."""
    try:
        if not path.exists():
            return _EMPTY
        if not path.is_file():
            raise LibraryError(f"{path} is no file; move it away to get a side-car there")
        if path.stat().st_size > MAX_BYTES:
            raise LibraryError(f"{path} is over {MAX_BYTES} bytes; that is no side-car")
        return path.read_bytes() or _EMPTY
    except OSError as error:
        raise LibraryError(f"{path} cannot be read: {error.strerror or error}") from None


def with_alt_text(
    packet: bytes, text: str, *, language: str, replace: bool, name: str
) -> bytes | None:
    """An XMP packet with an alternative text; None where it has one that is not to be replaced.

    packet : a side-car's bytes; entities and documents elsewhere are not read
    language : the text is written for it and as "x-default"; other languages stay as they are
    name : of the side-car, for errors

    Raises ``LibraryError`` for a packet that is no XMP.
    """
    etree = lxml_etree()
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        root = etree.fromstring(packet, parser)
    except etree.XMLSyntaxError as error:
        raise LibraryError(
            f"{name} is no XML ({error.msg}), so it is left as it is; mend it or move it away"
        ) from None
    tree = root.getroottree()
    rdf = root if root.tag == f"{{{RDF}}}RDF" else root.find(f".//{{{RDF}}}RDF")
    if rdf is None or tree.docinfo.doctype:
        what = "has a document type" if rdf is not None else "holds no rdf:RDF"
        raise LibraryError(f"{name} {what}: it is no XMP and is left as it is; move it away")
    existing = [d.find(ALT_TEXT) for d in rdf.findall(f"{{{RDF}}}Description")]
    texts = [element for element in existing if element is not None]
    if texts and not replace and any("".join(one.itertext()).strip() for one in texts):
        return None
    element = texts[0] if texts else _add_property(etree, rdf)
    alternatives = element.find(f"{{{RDF}}}Alt")
    if alternatives is None:  # an empty property, or one that is not written as it should be
        for child in list(element):
            element.remove(child)
        element.text = None
        alternatives = etree.SubElement(element, f"{{{RDF}}}Alt")
    _set(etree, alternatives, language, text)
    _set(etree, alternatives, DEFAULT_LANGUAGE, text)
    return bytes(etree.tostring(tree, encoding="utf-8", xml_declaration=_declared(packet)))


def _declared(packet: bytes) -> bool:
    return packet.lstrip(b"\xef\xbb\xbf\r\n\t ").startswith(b"<?xml ")


def _add_property(etree: Any, rdf: Any) -> Any:
    description = rdf.find(f"{{{RDF}}}Description")
    if description is None:
        description = etree.SubElement(rdf, f"{{{RDF}}}Description", {f"{{{RDF}}}about": ""})
    return etree.SubElement(description, ALT_TEXT, nsmap={"Iptc4xmpCore": IPTC})


def _set(etree: Any, alternatives: Any, language: str, text: str) -> None:
    """Set one language's text; "x-default" comes first, as XMP asks for (ISO 16684-1, 8.2.2.4)."""
    for item in alternatives.findall(f"{{{RDF}}}li"):
        if item.get(LANGUAGE, "").lower() == language.lower():
            for child in list(item):
                item.remove(child)
            item.text = text
            return
    item = etree.Element(f"{{{RDF}}}li", {LANGUAGE: language})
    item.text = text
    alternatives.insert(0 if language == DEFAULT_LANGUAGE else len(alternatives), item)
