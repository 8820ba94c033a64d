"""A headless Chromium for pages, where one is installed: playwright, with its own browser or one of the system's."""

import os
import shutil

import pytest

NAMES = ('chromium-headless-shell', 'chromium', 'chromium-browser', 'google-chrome')


def launched():
    """(playwright, browser), both started; skips, with the reason, where there is none."""
    api = pytest.importorskip('playwright.sync_api', reason='no browser: playwright is not installed (extra browser)')
    found = os.environ.get('MIM_MM_CHROMIUM') or next(filter(None, map(shutil.which, NAMES)), None)
    manager = api.sync_playwright().start()
    try:
        return manager, manager.chromium.launch(executable_path=found, args=['--no-sandbox'])
    except api.Error as error:
        manager.stop()
        pytest.skip(f'no browser: install chromium, or name it in MIM_MM_CHROMIUM ({str(error).splitlines()[0]})')


def opened(browser, path, width=1300, theme='light'):
    """(page, what its console complained of); any request but for the file itself is a complaint."""
    context = browser.new_context(viewport=dict(width=width, height=900), color_scheme=theme)
    page, complaints = context.new_page(), []
    page.on('console', lambda message: complaints.append(message.text) if message.type == 'error' else None)
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.on('request', lambda request: complaints.append(request.url) if _outside(request.url, path) else None)
    page.goto(path.resolve().as_uri())
    return page, complaints


def _outside(url, path):
    return not url.startswith(('data:', path.resolve().as_uri()))
