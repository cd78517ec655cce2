"""A web server on this machine that misbehaves in the ways that servers do."""

import contextlib
import hashlib
import http.server
import re
import threading

HTML = b'<!DOCTYPE html><html><title>403 Forbidden</title></html>' + b' ' * 600


class Server(http.server.ThreadingHTTPServer):
  """Serves `files` by path; `faults` maps a path to a list of behaviours.

  Each request takes the next behaviour of its path; the last one stays. A
  request without any is answered well, ranges and If-Range included.
  """

  daemon_threads = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), _Handler)
    self.files = {}
    self.faults = {}
    self.requests = []
    self.retry_after = '0'
    self.validator = 'ETag'
    self.over = threading.Event()

  def url(self, path: str) -> str:
    return f'http://127.0.0.1:{self.server_address[1]}{path}'

  def ranges(self) -> list:
    return [headers.get('Range') for _, headers in self.requests]

  def handle_error(self, request, client_address):
    """Clients that give up are part of the game."""


class _Handler(http.server.BaseHTTPRequestHandler):
  def log_message(self, *_):
    pass

  def do_GET(self):
    self.server.requests.append((self.path, dict(self.headers)))
    faults = self.server.faults.get(self.path, [])
    fault = faults.pop(0) if len(faults) > 1 else (faults or ['none'])[0]
    getattr(self, '_' + fault)(self.server.files.get(self.path, b''))

  def _answer(self, status, body, headers=(), length=True):
    self.send_response(status)
    headers = {'Content-Type': 'application/octet-stream', **dict(headers)}
    if length is not False:
      headers['Content-Length'] = len(body) if length is True else length
    for name, value in headers.items():
      self.send_header(name, str(value))
    self.end_headers()
    self.wfile.write(body)

  def _version(self, body):
    digest = hashlib.md5(body).hexdigest()
    if self.server.validator == 'ETag':
      return {'ETag': f'"{digest}"'}
    day = int(digest[0], 16) + 1
    return {
      'ETag': 'W/"weak"',
      'Last-Modified': f'{day:02} Jan 2024 00:00:00 GMT',
    }

  def _start(self, body):
    match = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', ''))
    wanted = self.headers.get('If-Range')
    if wanted and wanted != self._version(body)[self.server.validator]:
      return 0
    return int(match[1]) if match else 0

  def _none(self, body, send=None):
    start = self._start(body)
    headers = self._version(body)
    if not start:
      return self._answer(200, body[:send], headers, len(body))
    if start >= len(body):
      headers['Content-Range'] = f'bytes */{len(body)}'
      return self._answer(416, b'', headers)
    headers['Content-Range'] = f'bytes {start}-{len(body) - 1}/{len(body)}'
    stop = None if send is None else start + send
    return self._answer(206, body[start:stop], headers, len(body) - start)

  def _truncate(self, body):
    self._none(body, send=100_000)

  def _stall(self, body):
    self._none(body, send=100_000)
    self.wfile.flush()
    self.server.over.wait(10)

  def _stall_at_once(self, body):
    self.server.over.wait(10)

  def _slow(self, body):
    self.server.over.wait(0.3)
    self._none(body)

  def _no_range(self, body):
    self._answer(200, body)

  def _no_range_truncate(self, body):
    self._answer(200, body[:100_000], length=len(body))

  def _no_if_range(self, body):
    del self.headers['If-Range']
    self._none(body)

  def _range_without_length(self, body):
    start = self._start(body)
    whole = f'bytes {start}-{len(body) - 1}/{len(body)}'
    self._answer(206, body[start:], {'Content-Range': whole}, length=False)

  def _no_length(self, body):
    self._answer(200, body, length=False)

  def _not_found(self, body):
    self._answer(404, HTML, {'Content-Type': 'text/html'})

  def _forbidden(self, body):
    self._answer(403, HTML, {'Content-Type': 'text/html; charset=utf-8'})

  def _page(self, body):
    self._answer(200, HTML, {'Content-Type': 'text/html'})

  def _disguised_page(self, body):
    self._answer(200, HTML)

  def _challenge(self, body):
    self._answer(202, b'', {'x-amzn-waf-action': 'challenge'})

  def _busy(self, body):
    self._answer(503, b'', {'Retry-After': self.server.retry_after})


@contextlib.contextmanager
def running():
  """Yields a running Server."""
  server = Server()
  thread = threading.Thread(target=server.serve_forever, args=(0.01,))
  thread.start()
  try:
    yield server
  finally:
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()
