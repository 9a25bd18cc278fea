// Print Seam's OpenAPI document, cut down to the routes that seam_ik calls.
import { openapi } from '@seamapi/types/connect'

const routes = [
  '/user_identities/generate_instant_key',
  '/instant_keys/get',
  '/instant_keys/list',
  '/instant_keys/delete',
]
const paths = Object.fromEntries(routes.map((r) => [r, { post: openapi.paths[r].post }]))
const { instant_key } = openapi.components.schemas
console.log(JSON.stringify({
  openapi: openapi.openapi,
  info: openapi.info,
  servers: [{ url: 'http://127.0.0.1' }],
  paths,
  components: { schemas: { instant_key }, securitySchemes: openapi.components.securitySchemes },
}))
