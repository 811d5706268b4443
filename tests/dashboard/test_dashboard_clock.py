"""The clock of the question `dashboard`, in a real browser."""

from benchmarks.browser import screen_of

PAGE = "data:text/html,<h1>Runs</h1><p id=it>{text}</p><a href='%23'>more</a>"


def test_the_browsers_clock_sees_content_that_is_there_and_none_that_is_not(browser):
    with screen_of(browser) as screen:
        address = PAGE.format(text="of 30 runs")
        assert screen.open(address, {"title": "Runs", "content": "#it"}) > 0
        changed = {"text": r"of (\d+) runs", "not": "of 30 runs"}
        assert screen.click("//a", changed, most_s=0.3) is None
        assert screen.click("//a", {"content": "#it"}) < 5
        assert screen.text(r"of (\d+) runs") == "of 30 runs"
