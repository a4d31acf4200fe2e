"""The one base of all explorers: :class:`Explorer`.

An explorer is an ``anywidget`` whose logic is all in its JavaScript. With a kernel it is a widget
like any other, its traits in step with Python. Without one, on the website, on a USB stick or in
an exported notebook, the same JavaScript runs on a small model of its own, from the page that the
cell published as ``text/html``. Without JavaScript, that page holds a still picture.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path

import anywidget

__all__ = ["Explorer"]

HERE = Path(__file__).parent
CSS = (HERE / "base.css").read_text()


class Explorer(anywidget.AnyWidget):
    """Base class of the explorers.

    A subclass names its JavaScript file in :attr:`script`, declares its state as traits with
    ``sync=True``, and draws a still picture of it in :meth:`still`. The file sees all that
    ``base.js`` defines and ends with ``export default { render }``. Styles that no other explorer
    needs are in a ``.css`` file of the same name.

    Attributes:
        script: the name of the subclass's JavaScript file, beside this one.
        caption: one sentence that says what the still picture shows; its alt text.

    Raises:
        traitlets.TraitError: if a trait is given a value that it cannot take.
    """

    script: str
    caption: str

    def __init_subclass__(cls, **kwargs) -> None:
        if "script" in cls.__dict__:  # anywidget makes subclasses of its own, without one
            # Code from a blob cannot import, so that base and explorer travel as one module.
            cls._esm = (HERE / "base.js").read_text() + "\n" + (HERE / cls.script).read_text()
            own = (HERE / cls.script).with_suffix(".css")
            cls._styles = {"base": CSS}
            if own.exists():
                cls._styles[own.stem] = own.read_text()
            cls._css = "".join(cls._styles.values())
        super().__init_subclass__(**kwargs)

    def still(self) -> str:
        """The explorer in its present state as an SVG document, without JavaScript."""
        raise NotImplementedError(f"{type(self).__name__} has no still picture")

    def state(self) -> dict:
        """The explorer's own traits, as they are now."""
        own = set(self.traits(sync=True)) - set(anywidget.AnyWidget.class_traits(sync=True))
        return {name: getattr(self, name) for name in sorted(own) if not name.startswith("_")}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return {**data, "text/plain": repr(self), "text/html": self._page()}, metadata

    def _page(self) -> str:
        """The explorer as a piece of a page that needs nothing else; the same for one state."""
        name = type(self).__name__
        state = json.dumps(self.state(), sort_keys=True)
        key = f"{name}-{hashlib.sha256(state.encode()).hexdigest()[:8]}"
        picture = base64.b64encode(self.still().encode()).decode()
        boot = (HERE / "boot.js").read_text()
        values = {"KEY": key, "STATE": state, "ESM": self._esm, "STYLES": json.dumps(self._styles)}
        # A string literal is safe inside <script> once no tag can end it.
        literals = {
            place: json.dumps(value).replace("</", "<\\/").replace("<!--", "<\\!--")
            for place, value in values.items()
        }
        boot = re.sub(f"__({'|'.join(values)})__", lambda match: literals[match[1]], boot)
        return (
            f'<div class="fl-explorer" data-explorer="{name}" data-key="{key}">'
            f'<img alt="{html.escape(self.caption)}" width="640" '
            f'src="data:image/svg+xml;base64,{picture}"></div>\n'
            f'<script type="module">\n{boot}</script>'
        )
