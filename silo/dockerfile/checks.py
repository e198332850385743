"""What Docker warns of in a Dockerfile, and the `# check=` directive that chooses among the warnings.

Source: https://docs.docker.com/reference/build-checks/. The rules here are those that do not need a build.
"""

from __future__ import annotations

from silo.dockerfile.mistakes import mistake, shown
from silo.dockerfile.syntax import Instruction

_OPTIONS = ("skip", "error", "experimental")


class Checks:
    """Collects warnings; `skip` names rules that are not told, `is_error` makes any warning an error."""

    def __init__(self, *, skip: frozenset[str] = frozenset(), is_error: bool = False) -> None:
        self._skip = skip
        self._is_error = is_error
        self._warnings: list[str] = []

    @classmethod
    def parse(cls, text: str, *, where: str) -> Checks:
        """`skip=RULE,RULE;error=true`; an empty text chooses all rules. Raises InvalidRequest."""
        skip: frozenset[str] = frozenset()
        is_error = False
        for option in filter(None, (part.strip() for part in text.split(";"))):
            name, equals, value = (part.strip() for part in option.partition("="))
            if not equals or name not in _OPTIONS:
                raise mistake(where, f"invalid check option {shown(option)}", hint="skip=RULE,… or error=true")
            if name == "skip":
                skip = frozenset(rule.strip().lower() for rule in value.split(","))
            elif name == "error":
                if value.lower() not in ("true", "false"):
                    raise mistake(where, f"invalid check option {shown(option)}", hint="error=true or error=false")
                is_error = value.lower() == "true"
        return cls(skip=skip, is_error=is_error)

    def warn(self, rule: str, instruction: Instruction, text: str) -> None:
        """Keep a warning unless its rule is skipped."""
        if rule.lower() not in self._skip and "all" not in self._skip:
            self._warnings.append(f"{instruction.where}: {text} ({rule})")

    def look_at(self, instruction: Instruction, *, has_blank: bool) -> None:
        """Everything that one instruction shows by itself."""
        name, text = instruction.name, instruction.text
        if has_blank:
            what = f"empty continuation line found in: {shown(instruction.original)[1:-1]}"
            self.warn("NoEmptyContinuation", instruction, what)
        if name == "MAINTAINER":
            what = "MAINTAINER is deprecated: use LABEL org.opencontainers.image.authors=… instead"
            self.warn("MaintainerDeprecated", instruction, what)
        if name in ("ENV", "LABEL") and not text.startswith(instruction.words[0]):
            what = f'{name} with "name value" is the old form: write {name} name=value'
            self.warn("LegacyKeyValueFormat", instruction, what)
        if name == "EXPOSE" and any(":" in word and "$" not in word for word in instruction.words):
            what = "EXPOSE names ports of the container only: publish them on the host by docker run -p"
            self.warn("ExposeInvalidFormat", instruction, what)
        if name in ("RUN", "CMD", "ENTRYPOINT", "ADD", "COPY", "VOLUME") and not instruction.is_json:
            if name in ("RUN", "CMD", "ENTRYPOINT") and not text:
                self.warn("EmptyCommand", instruction, f"{name} has no command")
            if text.startswith("[") and text.endswith("]"):
                what = f"{shown(text)} looks like a JSON list and is none, so it is taken as text: use double quotes"
                self.warn("JSONArgsRecommended", instruction, what)

    def finish(self) -> tuple[str, ...]:
        """The warnings in order. Raises InvalidRequest when there are some and the file wants them to be errors."""
        if self._warnings and self._is_error:
            first, *more = self._warnings
            others = f" and {len(more)} more" if more else ""
            raise mistake("", f"{first}{others}", hint="`# check=error=true` makes warnings errors")
        return tuple(self._warnings)
