"""How Sphinx makes the site from the pages that scripts/website.py has written."""

from iris_serve import __version__

project = "iris_serve"
author = copyright = "the iris_serve authors"
version = release = __version__
language = "en"
smartquotes = False  # two hyphens are an option
extensions = ["myst_nb", "sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["extra", "conf.py"]
html_extra_path = ["extra"]

# The outputs are those of the committed notebooks.
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}  # it would be loaded from elsewhere
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # lessons abbreviate with …

add_module_names = False
maximum_signature_line_length = 80
python_display_short_literal_types = True
toc_object_entries = False

html_theme = "pydata_sphinx_theme"
html_title = "iris_serve"
html_context = {"default_mode": "auto"}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_baseurl = "https://iris-serve.github.io/iris_serve/"
html_theme_options = {
    "github_url": "https://github.com/iris-serve/iris_serve",
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_toc_level": 2,
    "navigation_depth": 3,
    "show_nav_level": 1,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {"index": [], "CHANGELOG": [], "CONTRIBUTING": []}
