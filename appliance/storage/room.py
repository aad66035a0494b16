"""How much more a tenant may write into its workspaces.

One per open tenant, on its ``TenantRoot``: whoever measures tells it, whoever
writes asks it. What is not known is not refused.
"""

from collections.abc import Callable

from appliance.model.errors import ApplianceError, QuotaExceeded

MIB = 1024 * 1024


class Room:
    """Methods may be called from any thread; each reads or sets one thing."""

    def __init__(self) -> None:
        self.is_stale = True  # something may have changed since it was measured
        self._left: int | None = None
        self._refusal: Callable[[], ApplianceError] | None = None

    def told(self, *, left: int | None, refusal: Callable[[], ApplianceError] | None) -> None:
        """What was found: the bytes that are left (None: no limit), or why there are none."""
        self._left = left
        self._refusal = refusal

    @property
    def left_bytes(self) -> int | None:
        return self._left

    def require(self, size: int = 0) -> None:
        """Raise ``QuotaExceeded`` or ``DiskFull`` if ``size`` more bytes may not be written."""
        if self._refusal is not None:
            raise self._refusal()
        if self._left is not None and size > self._left:
            raise QuotaExceeded(
                f"there is room for {self._left} more bytes in the tenant's workspace and this "
                f"has {size}; delete files, or ask the operator for more",
                left_bytes=self._left,
            )

    def changed(self, size: int = 0) -> None:
        """``size`` more bytes were written, or something was removed."""
        self.is_stale = True
        if self._left is not None:
            self._left = max(0, self._left - size)
