"""Every error of irs, as one tree; each class has a stable ``code``.

::

    IrsError
    ├── RequestError             the caller's image or options are at fault: final, recorded
    │   ├── NotFound               not_found
    │   ├── Forbidden              forbidden
    │   ├── EmptyImage             empty
    │   ├── TooLarge               too_large
    │   ├── NotAnImage             not_an_image
    │   ├── UnsupportedFormat      unsupported_format
    │   ├── Damaged                damaged
    │   ├── TooManyPixels          too_many_pixels
    │   ├── BadOptions             bad_options
    │   └── Cancelled              cancelled
    ├── PassingError             the cloud or time is at fault: the message comes back later
    │   ├── StorageUnavailable     storage_unavailable
    │   ├── QueueUnavailable       queue_unavailable
    │   └── StageTimeout           stage_timeout
    ├── InternalError            internal: ours; tried again, recorded at the last receive
    ├── RecognitionFailed        carries the code of a stored record to the caller
    └── SetupError               an operator can mend it: said in one sentence at start
        ├── ModelError             bad_model
        ├── MissingExtra           missing_extra
        ├── MissingResource        missing_resource
        └── Unreachable            unreachable

Every class hands all its constructor arguments to ``Exception.__init__`` as text or numbers, so that it
survives pickling and Celery's JSON result backend; the sentence for people is made in ``__str__``.
"""

from __future__ import annotations

from typing import ClassVar


class IrsError(Exception):
    """Base of all errors of irs."""

    code: ClassVar[str] = "internal"


class RequestError(IrsError):
    """The image or the options of one task are at fault; a retry cannot help."""


class NotFound(RequestError):
    """The object is not there."""

    code = "not_found"

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key} is not there: hand the image in again."


class Forbidden(RequestError):
    """The worker may not read the object."""

    code = "forbidden"

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key} may not be read: name its bucket in IRS_READABLE_BUCKETS and allow s3:GetObject on it."


class EmptyImage(RequestError):
    """The object holds no bytes."""

    code = "empty"

    def __str__(self) -> str:
        return "The file is empty: hand in one with bytes in it."


class TooLarge(RequestError):
    """More bytes than ``IRS_MAX_BYTES``."""

    code = "too_large"

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(size_bytes, limit_bytes)
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes

    def __str__(self) -> str:
        return f"The file has {self.size_bytes:,} bytes, the limit is {self.limit_bytes:,}: hand in a smaller copy."


class NotAnImage(RequestError):
    """The bytes are in no picture format known here."""

    code = "not_an_image"

    def __init__(self, head_hex: str) -> None:
        super().__init__(head_hex)
        self.head_hex = head_hex

    def __str__(self) -> str:
        return f"The file is no picture (it starts with {self.head_hex}): hand in a JPEG, PNG or WebP."


class UnsupportedFormat(RequestError):
    """A picture format that is known, but not read here."""

    code = "unsupported_format"

    def __init__(self, format: str) -> None:
        super().__init__(format)
        self.format = format

    def __str__(self) -> str:
        return f"{self.format} files are not read here: save the picture as JPEG, PNG or WebP."


class Damaged(RequestError):
    """The picture ends early or breaks off."""

    code = "damaged"

    def __init__(self, format: str, detail: str) -> None:
        super().__init__(format, detail)
        self.format, self.detail = format, detail

    def __str__(self) -> str:
        return f"The {self.format} file is damaged ({self.detail}): hand in a whole copy."


class TooManyPixels(RequestError):
    """More pixels than ``IRS_MAX_PIXELS``; told from the header."""

    code = "too_many_pixels"

    def __init__(self, width: int, height: int, limit_px: int) -> None:
        super().__init__(width, height, limit_px)
        self.width, self.height, self.limit_px = width, height, limit_px

    def __str__(self) -> str:
        return f"The picture has {self.width} x {self.height} pixels, the limit is {self.limit_px:,}: hand in a smaller copy."


class BadOptions(RequestError):
    """An option of the task is unknown or out of its range."""

    code = "bad_options"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.detail}."


class Cancelled(RequestError):
    """The job was cancelled before this image was recognised."""

    code = "cancelled"

    def __str__(self) -> str:
        return "The job was cancelled."


class PassingError(IrsError):
    """Something outside did not answer; the same work may succeed later."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class StorageUnavailable(PassingError):
    """S3 refused, timed out or broke the connection."""

    code = "storage_unavailable"


class QueueUnavailable(PassingError):
    """SQS refused, timed out or broke the connection."""

    code = "queue_unavailable"


class StageTimeout(PassingError):
    """One stage of the worker did not end in its time."""

    code = "stage_timeout"


class InternalError(IrsError):
    """A fault of ours, with what is known about it."""

    code = "internal"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"Recognition failed inside the service ({self.detail})."


class RecognitionFailed(IrsError):
    """The stored record says that this image has no labels, and why.

    Raised by the task and by ``AsyncResult.get()``; ``error_code`` is the record's ``error.code``.
    """

    code = "recognition_failed"

    def __init__(self, task_id: str, error_code: str, message: str) -> None:
        super().__init__(task_id, error_code, message)
        self.task_id, self.error_code, self.message = task_id, error_code, message

    def __str__(self) -> str:
        return f"{self.error_code}: {self.message}"


class SetupError(IrsError):
    """The service cannot start or be reached as it is set up; the sentence says what to do."""

    code = "setup"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class ModelError(SetupError):
    """The model directory or name cannot be used."""

    code = "bad_model"


class MissingExtra(SetupError):
    """A package of an optional extra is not installed."""

    code = "missing_extra"


class MissingResource(SetupError):
    """A bucket or queue is not there: ``irs provision`` makes it."""

    code = "missing_resource"


class Unreachable(SetupError):
    """The endpoint does not answer."""

    code = "unreachable"
