"""Silence: nothing of a header in warnings or logs, and everything back afterwards."""

from __future__ import annotations

import logging
import threading
import warnings

import pytest

from gmia_monai.dicom.silence import header_silence


def test_silent_inside_and_restored_outside(caplog):
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with header_silence(), header_silence():
            warnings.warn("Invalid value DOE^JANE", stacklevel=1)
            logging.getLogger("pydicom.pixels").error("DOE^JANE")
        assert not caught and "DOE" not in caplog.text
        warnings.warn("heard", stacklevel=1)
        logging.getLogger("pydicom.pixels").error("heard")
        assert len(caught) == 1 and "heard" in caplog.text
    assert warnings.filters == before


def test_restored_after_errors_and_overlapping_threads():
    level, before = logging.getLogger("pydicom").level, list(warnings.filters)
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with header_silence():
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=hold)
    with pytest.raises(ValueError), header_silence():
        thread.start()
        inside.wait(5)
        raise ValueError
    assert logging.getLogger("pydicom").level > logging.CRITICAL
    leave.set()
    thread.join()
    assert logging.getLogger("pydicom").level == level and warnings.filters == before
