"""Folders of one's own, beside lrp's."""

import os


def pytest_addoption(parser):
    parser.addoption("--conf", action="append", default=[], help="a folder of your own options, held to lrp's contracts too")


def pytest_configure(config):
    folders = [*config.getoption("--conf"), *filter(None, [os.environ.get("LRP_CONF")])]
    os.environ["LRP_CONF"] = os.pathsep.join(folders)
