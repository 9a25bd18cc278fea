"""What a run has measured, as a page and as data of a chart."""

import datetime
import os
import platform
import textwrap


def processor():
    """The processor's name, as the kernel tells it."""
    try:
        with open('/proc/cpuinfo') as info:
            for line in info:
                if line.startswith('model name'):
                    return line.split(':', 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def distribution():
    """The name of the distribution."""
    try:
        return platform.freedesktop_os_release()['PRETTY_NAME']
    except OSError:
        return platform.system()


class Report:
    """Figures by chart, contender and case; each chart has one unit."""

    # What is compared, in this order, and how the charts are titled.
    CONTENDERS = ('floor', 'seam_ik', 'plpython3u', 'pgsql-http')
    CHARTS = {
        'warm': ('A call in a warm session, row and all', 'µs'),
        'connect': ('A call that needs a new TLS connection', 'ms'),
        'batch': ('1,000 keys, 100 at once', 'ms'),
        'hour': ('Keys that a worker sustains, row and all', 'thousands an hour'),
    }

    def __init__(self):
        self.figures = {}
        self.on = ''

    def measured_on(self, server, libcurl):
        """Note what the run is made on: PostgreSQL's and libcurl's versions."""
        self.on = '%s, %d processors; %s, %s, libcurl %s; %s' % (
            processor(), len(os.sched_getaffinity(0)), distribution(), server,
            libcurl, datetime.date.today().isoformat())

    def add(self, chart, contender, case, value):
        """Note a figure, in the chart's unit."""
        self.figures.setdefault(chart, {}).setdefault(contender, {})[case] = value

    def write(self, folder):
        """Write bench.md, and for each chart CHART.tsv, whose first line names the
        cases, and the file `on`: into an existing folder."""
        (folder / 'on').write_text(self.on + '\n')
        page = ['# The last bench', '',
                *textwrap.wrap(
                    '`make bench` has written this page and its picture. Measured on: %s.' % self.on, 116), '',
                *textwrap.wrap(
                    'The floor is a bare loop on libcurl; the others are other ways to call HTTP from a'
                    ' database, where they are installed. Medians.', 116), '',
                '![What is below, as bars](bench.svg)', '']
        for chart, (title, unit) in self.CHARTS.items():
            if chart not in self.figures:
                continue
            rows = self.figures[chart]
            cases = list(dict.fromkeys(case for row in rows.values() for case in row))
            page += ['| %s, %s | %s |' % (title, unit, ' | '.join(cases)),
                     '| --- |' + ' --- |' * len(cases)]
            lines = ['\t'.join(['contender', *cases])]
            for contender in self.CONTENDERS:
                if contender not in rows:
                    continue
                row = rows[contender]
                page.append('| %s | %s |' % (contender, ' | '.join(
                    '%.3g' % row[case] if case in row and row[case] < 100 else
                    '%.0f' % row[case] if case in row else '' for case in cases)))
                lines.append('\t'.join([contender, *(
                    '%.3f' % row[case] if case in row else '?' for case in cases)]))
            page.append('')
            (folder / (chart + '.tsv')).write_text('\n'.join(lines) + '\n')
        (folder / 'bench.md').write_text('\n'.join(page).rstrip('\n') + '\n')
