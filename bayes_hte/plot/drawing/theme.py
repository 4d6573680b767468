"""Colours of figures, as one value that a caller may replace."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a figure by what they mean; the defaults are for white paper.

    Attributes
    ----------
    paper_color : str
        Ground of a new figure, and inside of rings.
    ink_color, quiet_color : str
        Words, the null line and averages; words that explain.
    raw_color, pooled_color : str
        What was estimated without and with pooling.
    rule_color, grid_color, stripe_color, heading_band_color : str
        Lines and grounds that guide the eye.
    interval_color, tail_color, tau_band_color : str
        Areas from dark to light: under a posterior; its tails, and the interval of an average; the range of tau.
    prior_color : str
        Area under a prior.
    sign_change_color, other_sign_change_color, other_curve_color : str
        Curves of a tau trace that change sign, with a name and without; and those without a name that do not.

    Examples
    --------
    >>> Theme(pooled_color="#7a1f5c").raw_color
    '#8a939d'
    """

    paper_color: str = "white"
    ink_color: str = "#1b1f24"
    # 6:1 against white: quiet, but readable.
    quiet_color: str = "#59636e"
    raw_color: str = "#8a939d"
    # Dark blue: distinct from grey for every kind of colour vision, and darker when printed.
    pooled_color: str = "#17508f"
    rule_color: str = "#b6bec7"
    grid_color: str = "#e4e8ec"
    stripe_color: str = "#f4f6f9"
    heading_band_color: str = "#e3e9f0"
    interval_color: str = "#a9c3df"
    tail_color: str = "#dce6f2"
    tau_band_color: str = "#ebf1f8"
    prior_color: str = "#c3cad2"
    # Burnt orange: 5:1 against white, distinct from blue for every kind of colour vision.
    sign_change_color: str = "#b04a0c"
    other_sign_change_color: str = "#d9a57f"
    other_curve_color: str = "#b3bcc6"


DEFAULT_THEME = Theme()
