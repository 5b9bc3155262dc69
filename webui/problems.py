"""What goes wrong, as RFC 9457 ``application/problem+json``; each code has a page that explains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from irs.errors import Forbidden, IrsError, NotFound, PassingError, RequestError, SetupError, TooLarge

REQUEST_ID = "request_id"


@dataclass(frozen=True, slots=True)
class Code:
    """What a code stands for: the ``status`` it comes with, a ``title``, and what to do about it, for people."""

    status: int
    title: str
    advice: str


CODES: dict[str, Code] = {
    # of a request
    "bad_request": Code(400, "The request cannot be read", "Compare the request with the API reference at /api."),
    "unauthorized": Code(401, "A token is needed", "Sign in at /login, or send the header Authorization: Bearer TOKEN."),
    "bad_origin": Code(403, "The request came from another site", "Use the page itself; other sites may not act for you."),
    "bad_host": Code(421, "This address is not the page's", "Ask the operator to name the host in IRS_WEB_HOSTS."),
    "method_not_allowed": Code(405, "This address knows no such method", "The API reference at /api lists the methods."),
    "length_required": Code(411, "The length is not said", "Send the header Content-Length; curl does so with --data-binary."),
    "unsupported_media_type": Code(415, "The body is of another type", "Send JSON as application/json, files as a form."),
    "timeout": Code(408, "The upload stalled", "Send the image again; what arrived before it is kept."),
    "busy": Code(503, "The service is busy", "Wait for the seconds that Retry-After says, then try again."),
    "too_many_jobs": Code(429, "Too many jobs in a minute", "Wait for the seconds that Retry-After says, then try again."),
    "too_many_tries": Code(429, "Too many tries to sign in", "Wait for the seconds that Retry-After says, then try again."),
    # of a job
    "job_not_found": Code(404, "There is no such job", "Check the address. Jobs are forgotten some days after they ran."),
    "job_expired": Code(410, "The job has expired", "Hand the images in again."),
    "job_closed": Code(409, "The job takes no more images", "Open another job for further images."),
    "job_unfilled": Code(409, "Images of the job are missing", "Send the numbers in `missing`, then close the job."),
    "image_taken": Code(409, "The number is another image's", "Give each image of a job a number of its own."),
    "too_many_images": Code(422, "Too many images for one job", "Hand in the rest as another job."),
    "cancelled": Code(409, "The job was cancelled", "Open another job."),
    # of an image or its options
    "not_found": Code(404, "It is not there", "Check the address; images expire some days after they were handed in."),
    "forbidden": Code(403, "The object may not be read", "Name its bucket in IRS_READABLE_BUCKETS, or upload the image."),
    "empty": Code(422, "The file is empty", "Hand in a file with bytes in it."),
    "too_large": Code(413, "The file is too large", "Hand in a smaller copy."),
    "not_an_image": Code(422, "The file is no picture", "Hand in a JPEG, PNG, WebP or another picture."),
    "unsupported_format": Code(422, "This kind of picture is not read", "Save it as JPEG, PNG or WebP."),
    "damaged": Code(422, "The picture is damaged", "Hand in a whole copy."),
    "too_many_pixels": Code(422, "The picture has too many pixels", "Hand in a smaller copy."),
    "bad_options": Code(422, "An option is wrong", "The API reference at /api lists the options and their ranges."),
    "poisoned": Code(500, "Workers died over this image", "Hand in another copy, and tell the operator."),
    # of the service
    "storage_unavailable": Code(503, "The storage does not answer", "Wait a little and try again; what arrived is kept."),
    "queue_unavailable": Code(503, "The queue does not answer", "Wait a little and try again; what arrived is kept."),
    "stage_timeout": Code(503, "A step took too long", "Wait a little and try again."),
    "missing_resource": Code(503, "The service is not set up", "The operator runs `irs provision`."),
    "unreachable": Code(503, "The service cannot be reached", "The operator checks IRS_ENDPOINT_URL and the network."),
    "setup": Code(503, "The service is not set up", "The operator finds the reason in the log."),
    "internal": Code(500, "Something went wrong inside", "Try again; if it stays so, tell the operator the request id."),
}

#: What a person should wait before the next try, in seconds.
RETRY_AFTER_S = 5


class Problem(Exception):
    """An answer that is no success. ``more`` becomes further members of the JSON object."""

    def __init__(self, code: str, detail: str, *, retry_after_s: int | None = None, **more: Any) -> None:
        super().__init__(code, detail)
        self.code, self.detail, self.more = code, detail, more
        self.status = CODES[code].status
        if retry_after_s is None and self.status == 503:
            retry_after_s = RETRY_AFTER_S
        self.headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}

    def __str__(self) -> str:
        return self.detail


def problem_of(error: IrsError) -> Problem:
    """Return the answer that an error of the service stands for."""
    match error:
        case TooLarge() | NotFound() | Forbidden() | RequestError() | PassingError() | SetupError():
            return Problem(error.code if error.code in CODES else "setup", str(error))
        case _:
            return Problem("internal", "The service made a mistake.")


def problem_json(code: str, detail: str, *, root_path: str = "", request_id: str = "", **more: Any) -> dict[str, Any]:
    """Return the members of RFC 9457, ``code``, and ``more``."""
    known = CODES[code]
    return {
        "type": f"{root_path}/errors/{code}",
        "title": known.title,
        "status": known.status,
        "detail": detail,
        "code": code,
        "instance": request_id,
        **more,
    }


class ProblemResponse(JSONResponse):
    """One problem as an answer."""

    media_type = "application/problem+json"

    def __init__(self, scope: Mapping[str, Any], problem: Problem) -> None:
        content = problem_json(
            problem.code,
            problem.detail,
            root_path=scope.get("root_path", ""),
            request_id=scope.get("state", {}).get(REQUEST_ID, ""),
            **problem.more,
        )
        super().__init__(content, problem.status, {"Cache-Control": "no-store", **problem.headers})


def answer_problem(request: Request, error: Exception) -> ProblemResponse:
    """Answer a Problem or an error of the service: Starlette's handler for both."""
    problem = error if isinstance(error, Problem) else problem_of(error) if isinstance(error, IrsError) else None
    return ProblemResponse(request.scope, problem or Problem("internal", "The service made a mistake."))
