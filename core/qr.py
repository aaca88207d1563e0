"""QR codes as SVG, to be put into a page as they are."""

import segno


def qr_svg(text: str) -> str:
    """Return an `<svg>` element, four units to a module, with the quiet zone that the standard asks for."""
    svg: str = segno.make(text, error="m", micro=False).svg_inline(scale=4, border=4)
    return svg
