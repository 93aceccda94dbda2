"""Results of a run in Python: a dict that a terminal and a notebook show as tables.

results.json, report.png -> Results
"""

import html
import io
from base64 import b64encode
from pathlib import Path

from PIL import Image

from .results import REPORT, RESULTS, read_results, transfers
from .tables import columns, measured, table, verdict


class Results(dict):
    """The content of results.json of a run. folder: the run's output folder, which `AutoModel` loads the encoder from.

    `print(results)` shows the tables, a notebook also the report."""

    def __init__(self, folder: str | Path):
        """Reads the results of a folder. Raises `ValueError` if they are missing or damaged."""
        self.folder = Path(folder)
        super().__init__(read_results(self.folder))

    @property
    def report(self) -> Image.Image:
        """The report as an image. Raises `FileNotFoundError` if it was not drawn."""
        image = Image.open(self.folder / REPORT)
        image.load()
        return image

    @property
    def tables(self) -> dict[str, list[list[str]]]:
        """Tables by title: rows of cells, of which the first has the names of the columns."""
        shown = {}
        for transfer in transfers(self) if "transfer" in self else ():
            names = [f"{method}, {accuracy}" for method, accuracy in columns(transfer).values()]
            title = f"transfer, {transfer['kind']} encoder: {transfer['label']} of {transfer['dataset']}, test split"
            shown[title] = [["encoder", *names], *table(self, transfer)]
        if "measures" in self:
            shown["full model, test split"] = [["metric", *self["measures"]], *measured(self)]
        return shown

    def __repr__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        screen = Console(file=io.StringIO(), highlight=False, width=120)
        for title, (names, *rows) in self.tables.items():
            grid = Table(title=title)
            for name in names:
                grid.add_column(name)
            for row in rows:
                grid.add_row(*row)
            screen.print(grid)
        for transfer in transfers(self) if "transfer" in self else ():
            screen.print(*verdict(transfer), sep="\n", markup=False)
        screen.print(f"{self['recipe']}: {self.folder / RESULTS}", markup=False)
        return screen.file.getvalue()

    __str__ = __repr__

    def _repr_html_(self) -> str:
        parts = []
        for title, (names, *rows) in self.tables.items():
            head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
            body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
            parts.append(f"<table><caption>{html.escape(title)}</caption><tr>{head}</tr>{body}</table>")
        if (self.folder / REPORT).exists():
            image = b64encode((self.folder / REPORT).read_bytes()).decode()
            parts.append(f'<img alt="training curves and test examples" src="data:image/png;base64,{image}">')
        return "".join(parts) or f"<pre>{html.escape(repr(self))}</pre>"
