"""The page in a real browser: nothing fails or is loaded, tables sort and copy, colours switch, a phone is enough."""

import csv
import io

import pytest
from browser import launched, opened
from chain_factory import write_demo_chain

from mim_mm.report.page import write_report


@pytest.fixture(scope='module')
def browser():
    manager, found = launched()
    yield found
    found.close()
    manager.stop()


@pytest.fixture(scope='module')
def page_file(tmp_path_factory):
    return write_report(write_demo_chain(tmp_path_factory.mktemp('chain')))[0]


def column(page, table, place):
    return page.locator(f'table >> nth={table}').locator(f'tbody tr td:nth-child({place + 1}) .v').all_inner_texts()


@pytest.mark.parametrize('width', [375, 1300])
@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_nothing_fails_and_nothing_is_wider_than_the_screen(browser, page_file, width, theme):
    page, complaints = opened(browser, page_file, width, theme)
    assert complaints == []
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    # text of paragraphs and tables is not smaller than 11 px
    small = page.evaluate(
        "[...document.querySelectorAll('p, td, th, li, a, summary')].filter(e => e.offsetParent && "
        'parseFloat(getComputedStyle(e).fontSize) < 11).length'
    )
    assert small == 0
    assert page.evaluate('[...document.images].every(i => i.alt.length > 10 && i.complete && i.naturalWidth > 0)')
    page.context.close()


def test_tables_sort_by_number_and_back(browser, page_file):
    page, complaints = opened(browser, page_file)
    place = [text.strip() for text in page.locator('table >> nth=0').locator('th').all_inner_texts()].index(
        'Linear top-1'
    )
    before = column(page, 0, place)
    head = page.locator('table >> nth=0').locator('th button').nth(place)
    head.click()
    assert column(page, 0, place) == ['71.0 ± 1.0', '86.0 ± 2.0'] and before == ['86.0 ± 2.0', '71.0 ± 1.0']
    head.click()
    assert column(page, 0, place) == before
    assert page.locator('th[aria-sort]').get_attribute('aria-sort') == 'descending'
    runs = page.locator('table.small >> nth=0')
    runs.locator('th button').nth(5).click()  # times, of which one is not known: last
    times = runs.locator('tbody tr td:nth-child(6) .v').all_inner_texts()
    assert times[-1] == '–' and set(times[:-1]) == {'1 min 05 s'}
    assert complaints == []
    page.context.close()


def test_colours_switch_and_are_remembered(browser, page_file):
    page, complaints = opened(browser, page_file, theme='dark')
    ground = 'getComputedStyle(document.body).backgroundColor'
    dark = page.evaluate(ground)
    page.click('#theme')
    light = page.evaluate(ground)
    assert light == 'rgb(255, 255, 255)' and dark != light
    page.reload()
    assert page.evaluate(ground) == light and complaints == []
    page.context.close()


def copied(page, name):
    page.evaluate('window.taken = null; navigator.clipboard.writeText = async (text) => { window.taken = text; }')
    page.locator('.table >> nth=0').get_by_role('button', name=name, exact=True).click()
    return page.evaluate('window.taken')


def test_tables_are_copied_in_three_forms(browser, page_file):
    page, complaints = opened(browser, page_file)
    rows = list(csv.reader(io.StringIO(copied(page, 'CSV'))))
    assert rows[0][:3] == ['arm', 'Linear top-1', 'Fine-tune top-1']
    assert rows[1][:3] == ['emae', '86.0 ± 2.0 (95%: 81.0 to 91.0, n = 3)', '97.0 (one run)']
    assert len({len(row) for row in rows}) == 1
    tex = copied(page, 'LaTeX').splitlines()
    assert tex[1:3] == [r'\begin{tabular}{lrrrrrrrr}', r'\toprule'] and tex[4] == r'\midrule'
    assert tex[5].startswith(r'emae & 86.0 $\pm$ 2.0 & 97.0 & ') and tex[5].endswith(r'51.0 \\')
    assert tex[-2:] == [r'\bottomrule', r'\end{tabular}']
    markdown = copied(page, 'Markdown').splitlines()
    assert markdown[1] == '| --- |' + ' ---: |' * 8 and markdown[2].startswith('| emae | 86.0 ± 2.0 (95%')
    assert complaints == []
    page.context.close()


def test_parts_are_reached_from_the_top(browser, page_file):
    page, complaints = opened(browser, page_file, 375)
    names = page.locator('.bar nav a').all_inner_texts()
    assert names == page.locator('h2').all_inner_texts() and len(names) > 4
    page.locator('.bar nav a').last.click()
    assert page.locator('h2').last.bounding_box()['y'] < 900 and complaints == []
    page.context.close()
