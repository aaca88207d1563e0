// Swagger UI on our own document. The document names the server by its public address; "Try it out" asks the address
// that this page came from, because that is the only one its Content-Security-Policy allows.

const answer = await fetch("/openapi.json");
const spec = await answer.json();

window.SwaggerUIBundle({
  spec: { ...spec, servers: [{ url: window.location.origin }] },
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  filter: true,
  tryItOutEnabled: true,
  // Swagger UI would otherwise send the document to a validator elsewhere.
  validatorUrl: null,
});
