"""The one base of all explorers: :class:`Explorer`.

An explorer is an ``anywidget`` whose logic is all in its JavaScript. With a kernel it is a widget
like any other, its traits in step with Python. Without one, on the website, on a USB stick or in
an exported notebook, the same JavaScript runs on a small model of its own, from the page that the
cell published as ``text/html``. Without JavaScript, that page holds a still picture.

A notebook that is executed by a program, as ``jupyter nbconvert --execute`` does, gets the page
alone: what exports it would prefer the widget, which is dead without a kernel and asks for code
from a distant server.
"""

from __future__ import annotations

import base64
import hashlib
import html
import inspect
import json
import sys
from pathlib import Path
from typing import Any, ClassVar

import anywidget

__all__ = ["Explorer"]

HERE = Path(__file__).parent
VIEW = "application/vnd.jupyter.widget-view+json"


def _nobody_is_there() -> bool:
    """Whether the cell is run by a program: only that tells its kernel to ask for no input."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel: Any = getattr(shell, "kernel", None)
    request: dict[str, Any] = kernel.get_parent() if hasattr(kernel, "get_parent") else {}
    return request.get("content", {}).get("allow_stdin") is False


CSS = (HERE / "base.css").read_text()
ALIVE = (HERE / "alive.js").read_text()


class Explorer(anywidget.AnyWidget):
    """Base class of the explorers.

    A subclass names its JavaScript file in :attr:`script`, declares its state as traits with
    ``sync=True``, and draws a still picture of it in :meth:`still`. What it computes from its
    arguments is tagged ``computed=True``. The file can use everything that ``base.js`` and
    ``save.js`` define and ends with ``export default { render }``. Styles that no other explorer
    needs are in a ``.css`` file of the same name.

    Attributes:
        script: the name of the subclass's JavaScript file, beside this one.
        shared: the names of files that it shares with some of the others.

    Raises:
        TypeError: if it is given an option that it does not have.
        traitlets.TraitError: if an attribute is given a value that it cannot hold.
    """

    script: ClassVar[str]
    shared: ClassVar[tuple[str, ...]] = ()
    _styles: ClassVar[dict[str, str]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "script" in cls.__dict__:  # anywidget makes subclasses of its own, without one
            # Code from a blob cannot import, so that all files travel as one module.
            files = ("base.js", "save.js", *cls.shared, cls.script)
            cls._esm = "\n".join((HERE / name).read_text() for name in files)
            own = (HERE / cls.script).with_suffix(".css")
            cls._styles = {"base": CSS}
            if own.exists():
                cls._styles[own.stem] = own.read_text()
            cls._css = "".join(cls._styles.values())
        super().__init_subclass__(**kwargs)

    def __init__(self, **traits: Any) -> None:
        for name in traits:
            if not self.has_trait(name):
                raise TypeError(
                    f"{type(self).__name__}: there is no option {name!r}; the options are "
                    f"{', '.join(self._options())}"
                )
        super().__init__(**traits)

    @property
    def caption(self) -> str:
        """One sentence that says what the still picture shows; its alternative text."""
        raise NotImplementedError(f"{type(self).__name__} has no caption")

    @property
    def reading(self) -> str:
        """What the live explorer says of its present state, in words: its numbers and its task.

        It stands under the still picture, for readers on paper and without JavaScript.
        """
        raise NotImplementedError(f"{type(self).__name__} has no reading")

    def still(self) -> str:
        """The explorer in its present state as an SVG document, without JavaScript."""
        raise NotImplementedError(f"{type(self).__name__} has no still picture")

    def state(self) -> dict[str, Any]:
        """The explorer's own traits, as they are now."""
        return {name: getattr(self, name) for name in sorted(self._own())}

    def _own(self, **metadata: Any) -> list[str]:
        """The names of the explorer's own traits, of those that are tagged like this."""
        widgets = anywidget.AnyWidget.class_traits()
        names = self.traits(sync=True, **metadata)
        return [name for name in names if name not in widgets and not name.startswith("_")]

    def _options(self) -> list[str]:
        """What may be given by name: the constructor's own parameters and the attributes."""
        _, *parameters = inspect.signature(type(self).__init__).parameters.values()
        named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        return list(dict.fromkeys([*named, *self._own(computed=None)]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        if _nobody_is_there():
            data = {kind: value for kind, value in data.items() if kind != VIEW}
        return {**data, "text/plain": repr(self), "text/html": self._page()}, metadata

    def _page(self) -> str:
        """The explorer as a piece of a page that needs nothing else; the same for one state."""
        name = type(self).__name__
        state = json.dumps(self.state(), sort_keys=True)
        key = f"{name}-{hashlib.sha256(state.encode()).hexdigest()[:8]}"
        picture = base64.b64encode(self.still().encode()).decode()
        page = {"key": key, "state": self.state(), "code": self._esm, "styles": self._styles}
        # A string literal is safe inside <script> once no tag can end it.
        literal = json.dumps(json.dumps(page, sort_keys=True))
        literal = literal.replace("</", "<\\/").replace("<!--", "<\\!--")
        boot = ALIVE + (HERE / "boot.js").read_text().replace("__PAGE__", literal)
        return (
            f'<div class="fl-explorer" data-explorer="{name}" data-key="{key}">'
            f'<img alt="{html.escape(self.caption)}" width="640" '
            f'src="data:image/svg+xml;base64,{picture}">'
            f"<p>{html.escape(self.reading)}</p></div>\n"
            f'<script type="module">\n{boot}</script>'
        )
