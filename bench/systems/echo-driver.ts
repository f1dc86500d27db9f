/** To its client, the echo is a broker. */
export { connect } from "./baton-driver.ts";
