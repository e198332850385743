"""The images that stages begin with: found here, or pulled."""

from __future__ import annotations

from silo.engine.building.ports import BuildOutput, StepStore
from silo.engine.building.request import BuildRequest, Credentials
from silo.engine.events import EventBus
from silo.engine.ports import PullRequest
from silo.model.image import Image

SCRATCH = "scratch"
_DOCKER_HUB = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")


class ImageFinder:
    """For one build: what it has pulled once it does not pull again."""

    def __init__(self, store: StepStore, request: BuildRequest, output: BuildOutput, events: EventBus) -> None:
        self._store = store
        self._request = request
        self._output = output
        self._events = events
        self._pulled: dict[tuple[str, str], Image] = {}

    async def find(self, reference: str, platform: str) -> Image:
        """Raises what a pull raises."""
        key = (reference, platform)
        if key in self._pulled:
            return self._pulled[key]
        found = None if self._request.pull else self._store.find(reference, platform=platform)
        if found is None:
            found = await self._pull(reference, platform)
        self._pulled[key] = found
        return found

    async def _pull(self, reference: str, platform: str) -> Image:
        login = credentials_for(reference, self._request)
        wanted = PullRequest(reference=reference, platform=platform, username=login.username, password=login.password)
        await self._output.say(f"Pulling {reference}\n")
        image = await self._store.pull(wanted, self._output.report)
        self._events.publish("image", "pull", reference, {"name": reference})
        return image


def credentials_for(reference: str, request: BuildRequest) -> Credentials:
    """Those of the registry that a reference names."""
    first, slash, _ = reference.partition("/")
    names = (first,) if slash and ("." in first or ":" in first or first == "localhost") else _DOCKER_HUB
    known = (request.credentials.get(name) for name in (*names, *(f"https://{name}" for name in names)))
    return next((login for login in known if login is not None), Credentials())
