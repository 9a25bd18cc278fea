-- The same call by the means that a database without seam_ik has, answering with
-- the same row.  What the server has no extension for is left out.

CREATE TYPE peer_key AS (
	instant_key_id uuid,
	instant_key_url text,
	user_identity_id uuid,
	client_session_id uuid,
	workspace_id uuid,
	customization_profile_id uuid,
	customization jsonb,
	created_at timestamptz,
	expires_at timestamptz
);

-- pg_available_extensions does not list what extension_destdir offers, so try.
DO $$
BEGIN
	CREATE EXTENSION plpython3u;
EXCEPTION WHEN undefined_file OR feature_not_supported THEN
END
$$;
DO $$
BEGIN
	CREATE EXTENSION http;
EXCEPTION WHEN undefined_file OR feature_not_supported THEN
END
$$;
SELECT count(*) FILTER (WHERE extname = 'plpython3u') > 0 AS has_plpython,
	count(*) FILTER (WHERE extname = 'http') > 0 AS has_pgsql_http
	FROM pg_extension \gset

\if :has_plpython
-- http.client, one connection for each base URL kept for the session.
CREATE FUNCTION plpython_key(base text, key text, identity uuid, uses int)
RETURNS peer_key LANGUAGE plpython3u AS $$
import json
connection = SD.get(base)
if connection is None:
    import http.client
    import ssl
    scheme, _, host = base.partition('://')
    if scheme == 'https':
        connection = http.client.HTTPSConnection(
            host, context=ssl.create_default_context())
    else:
        connection = http.client.HTTPConnection(host)
    SD[base] = connection
connection.request(
    'POST', '/user_identities/generate_instant_key',
    body=json.dumps({'user_identity_id': identity, 'max_use_count': uses}),
    headers={'Authorization': 'Bearer ' + key,
             'Content-Type': 'application/json', 'Accept': 'application/json'})
answer = connection.getresponse()
content = answer.read()
if answer.status != 200:
    plpy.error('status %d' % answer.status)
found = json.loads(content)['instant_key']
customization = found.get('customization')
return (found['instant_key_id'], found['instant_key_url'],
        found['user_identity_id'], found['client_session_id'],
        found['workspace_id'], found.get('customization_profile_id'),
        None if customization is None else json.dumps(customization),
        found['created_at'], found['expires_at'])
$$;
\endif

\if :has_pgsql_http
-- A single expression, which the planner puts in the function's place.
CREATE FUNCTION pgsql_http_key(base text, key text, identity uuid, uses int)
RETURNS peer_key LANGUAGE sql AS $$
SELECT jsonb_populate_record(NULL::peer_key,
	(http(('POST', base || '/user_identities/generate_instant_key',
		ARRAY[('Authorization', 'Bearer ' || key)::http_header,
			  ('Accept', 'application/json')::http_header],
		'application/json',
		jsonb_build_object('user_identity_id', identity, 'max_use_count', uses)::text
		)::http_request)).content::jsonb -> 'instant_key')
$$;
\endif
