"""What the service itself can refuse or fail at, apart from the codec's own errors. Knows no HTTP.

ServiceError
|-- ImageError                   the upload is not an image we take
|   |-- UnsupportedImage         not an image, or a kind that is not accepted
|   |-- BrokenImage              an accepted kind whose data is damaged
|   `-- AnimatedImage            more than one frame, and the caller did not ask for the first
|-- TooLarge                     more bytes, pixels or work than the service takes
|   |-- BodyTooLarge             bytes of the body
|   |-- TooManyPixels            pixels of the image
|   `-- TooMuchWork              pixels x steps
|-- Busy                         too much work is waiting; `retry_after` says when to come back
|   `-- RateLimited              this caller has asked too often
|-- AccessError                  the caller may not do this
|   |-- NotAuthenticated         it has no API key, or an invalid one
|   |-- NotAllowed               its key lacks the scope
|   |-- LinkInvalid              the link was not made here
|   |-- LinkExpired              the link has expired
|   `-- LinksOff                 the service gives no links
|-- AddressNotAllowed            an address that is named is not one to connect to
|-- OutsideFailed                what lies there cannot be had
|-- KeysUnavailable              the store of API keys cannot be reached
|-- Draining                     the service is shutting down
|-- Overloaded                   too many requests are in flight
|-- NotReady                     the worker is still loading its models
|-- Cancelled                    the caller went away
|-- DeadlineExceeded             the deadline of the request passed
|-- WorkerFailed                 the worker process died twice on this request
|-- QueueUnavailable             the queue or the store behind it cannot be reached, or is full
`-- JobError                     a job cannot give what is asked of it
    |-- UnknownJob               there is none of that id for this caller
    |-- UnknownBatch             likewise
    |-- JobExpired               it has ended and its result is no longer kept
    |-- JobNotFinished           it has no result yet
    |-- JobCancelled             it was cancelled
    `-- KeyReused                an idempotency key came with other work before
"""

from __future__ import annotations


class ServiceError(Exception):
    """Base of the service's own errors. `str(error)` is safe to show to the caller."""


class ImageError(ServiceError):
    """The uploaded image cannot be used."""


class UnsupportedImage(ImageError):
    """Not an image, or of a kind that is not accepted."""


class BrokenImage(ImageError):
    """The data of the image is damaged."""


class AnimatedImage(ImageError):
    """The image has several frames."""


class TooLarge(ServiceError):
    """More than the service takes."""


class BodyTooLarge(TooLarge):
    """The body has more bytes than allowed."""


class TooManyPixels(TooLarge):
    """The image has more pixels than allowed."""


class TooMuchWork(TooLarge):
    """Pixels x steps exceed what one call may cost."""


class Busy(ServiceError):
    """Too much work is waiting. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message, retry_after)
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message


class RateLimited(Busy):
    """The caller has asked too often, or has too many requests at the same time."""


class AccessError(ServiceError):
    """The caller may not do this."""


class NotAuthenticated(AccessError):
    """No API key, or an invalid one."""


class NotAllowed(AccessError):
    """The API key lacks the scope."""


class LinkInvalid(AccessError):
    """The link was not made by this service."""


class LinkExpired(AccessError):
    """The link has expired."""


class LinksOff(AccessError):
    """The service has no secret to sign links with."""


class AddressNotAllowed(ServiceError):
    """An address that the caller names is not one that the service connects to."""


class LosslessIsSmaller(ImageError):
    """The image is a drawing that lossless compression stores in fewer bytes."""


class OutsideFailed(ServiceError):
    """What lies at an address that the caller names cannot be had."""


class KeysUnavailable(ServiceError):
    """The store of API keys, or of their counts, cannot be reached."""


class Draining(ServiceError):
    """The service is shutting down and takes no new work."""


class Overloaded(ServiceError):
    """More requests are in flight than the service answers at the same time."""


class NotReady(ServiceError):
    """The worker is not ready yet."""


class Cancelled(ServiceError):
    """The caller went away before the work was done."""


class DeadlineExceeded(ServiceError):
    """The deadline of the request passed before its work was done."""


class WorkerFailed(ServiceError):
    """The worker process died while it worked on this request, also when it was tried again."""


class QueueUnavailable(ServiceError):
    """The job queue or the blob store cannot be reached or takes nothing more; nothing was kept."""


class JobError(ServiceError):
    """A job cannot give what is asked of it."""


class UnknownJob(JobError):
    """There is no such job, or it is somebody else's."""


class UnknownBatch(JobError):
    """There is no such batch, or it is somebody else's."""


class JobExpired(JobError):
    """The job has ended and its result is no longer kept."""


class JobNotFinished(JobError):
    """The job has no result yet."""


class JobCancelled(JobError):
    """The job was cancelled."""


class KeyReused(JobError):
    """The idempotency key came with other work before."""
