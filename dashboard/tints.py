"""The colours of all charts: each is seen on the light page and on the dark one.

They are of Okabe and Ito's set, which people with any colour vision tell apart; its grey, orange
and sky blue are darker here, for WCAG asks for a contrast of 3 with what lies behind. What they say
is said by a shape, a dash or a label, too. Text in charts is the page's own: axes and legends.
"""

from __future__ import annotations

BLUE = "#0072B2"
RED = "#D55E00"
GREEN = "#009E73"
PINK = "#CC79A7"
AMBER = "#B87F00"
SKY = "#3A93CC"
GREY = "#808080"
OLIVE = "#8A6D00"
PURPLE = "#8E6BBF"
ALARM = "#CC3311"
LINES = (BLUE, RED, GREEN, PINK, AMBER, SKY, GREY, OLIVE)
